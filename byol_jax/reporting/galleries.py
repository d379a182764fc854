"""Pictures of a run on its page: the views, and nearest neighbours."""

from collections.abc import Sequence

import numpy as np

from byol_jax.reporting import markup
from byol_jax.reporting.examples import Found, Neighbours


def views(
  originals: Sequence[np.ndarray], view1: np.ndarray, view2: np.ndarray
) -> str:
  """Returns images beside the two views that the first step trains on.

  Args:
    originals: images [H, W, 3 or 1] of any sizes, uint8 or in [0, 1].
    view1: [N, H, W, 3 or 1] in [0, 1], one for each original.
    view2: likewise.
  """
  triples = "".join(
    "<div class=triple>"
    + markup.image(image, f"original {i}")
    + markup.image(first, f"view 1 of image {i}")
    + markup.image(second, f"view 2 of image {i}")
    + "<span>original</span><span>view 1</span><span>view 2</span></div>"
    for i, (image, first, second) in enumerate(
      zip(originals, view1, view2, strict=True), 1
    )
  )
  return f"<div class=triples>{triples}</div>\n"


def neighbours(found: Neighbours) -> str:
  """Returns images with their neighbours before and after training."""
  words = "Train images that lie nearest to each image by cosine."
  if found.after.agree is not None:
    words += " A dashed red frame marks another class."
  if found.before is None:
    words += (
      " The neighbours before training are missing: they need"
      " evaluation.baselines=True."
    )
  queries = "".join(_query(found, i) for i in range(len(found.images)))
  return f"{markup.note(words)}<div class=queries>{queries}</div>\n"


def _query(found: Neighbours, i: int) -> str:
  """Returns one image with a row of neighbours for each encoder."""
  columns = 1 + found.after.images.shape[1]
  name = found.names[i]
  query = markup.image(found.images[i], name or "image", "query")
  words = markup.text(name)
  caption = f'<span class=name title="{words}">{words}</span>' if name else ""
  rows = [f"<div>{query}{caption}</div>{_tiles(found.after, i)}"]
  if found.before is not None:
    rows.append(
      f"<div class=name>before training</div>{_tiles(found.before, i)}"
    )
  return (
    f'<div class=neighbours style="--columns:{columns}">{"".join(rows)}</div>\n'
  )


def _tiles(found: Found, i: int) -> str:
  def kind(k: int) -> str:
    if found.agree is None:
      return "tile"
    return "tile same" if found.agree[i, k] else "tile differs"

  return "".join(
    markup.image(image, found.names[i][k] or "neighbour", kind(k))
    for k, image in enumerate(found.images[i])
  )
