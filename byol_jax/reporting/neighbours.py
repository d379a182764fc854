"""Images with the nearest neighbours that the retrieval protocol found."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import figure

from byol_jax import errors
from byol_jax.evaluation import retrieval
from byol_jax.evaluation.features import same_class
from byol_jax.reporting import images, style
from byol_jax.runtime import files
from byol_jax.training import runs

_AGREE_COLOR = "#2a8f4f"
_DIFFER_COLOR = "#c0392b"
_SHOWN_NEIGHBOURS = 6
_MOST_LETTERS = 14  # Of size 8, as wide as an image.


def is_available(run: runs.Run) -> bool:
  """Returns whether an evaluation has found neighbours."""
  return _found_path(run).exists()


def write(run: runs.Run) -> pathlib.Path:
  """Draws `figures/neighbours.png` of an evaluated run and returns it.

  Its evaluation stored indices, so the images are read from the data again.

  Raises:
    UserError: the file of the evaluation is damaged.
  """
  found = _read_found(_found_path(run))
  queries, query_labels = images.read(
    run, run.source, str(found["query_split"]), found["queries"]
  )
  neighbours, labels = images.read(
    run,
    run.source,
    str(found["bank_split"]),
    found["neighbours"][:, :_SHOWN_NEIGHBOURS],
  )
  agree = names = None
  if np.all(query_labels >= 0):  # -1 is an unlabelled example.
    agree = same_class(
      labels, query_labels[:, None], multi_label=run.source.is_multi_label
    )
    names = [
      [_class_text(label, run.source.class_names) for label in (query, *row)]
      for query, row in zip(query_labels, labels, strict=True)
    ]
  path = style.figure_path(run.workdir, "neighbours")
  draw(queries, neighbours, found["cosines"], path, agree, names)
  return path


def _class_text(label: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns the classes of a label, as wide as an image."""
  text = images.class_text(label, class_names)
  if len(text) > _MOST_LETTERS:
    text = f"{text[: _MOST_LETTERS - 1]}…"
  return text


def _found_path(run: runs.Run) -> pathlib.Path:
  return run.workdir / retrieval.FILE


def _read_found(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns all arrays of a file, whose checksums reading verifies."""
  try:
    with files.on_disk(path) as file, np.load(file) as found:
      return dict(found)
  # The error depends on which byte is damaged.
  except Exception as error:
    raise errors.UserError(
      f"{path} is damaged ({error}); evaluate with retrieval again, or delete it."
    ) from error


def draw(
  queries: np.ndarray,
  neighbours: np.ndarray,
  cosines: np.ndarray,
  path: str | os.PathLike,
  agree: np.ndarray | None = None,
  names: Sequence[Sequence[str]] | None = None,
) -> None:
  """Draws images with their nearest neighbours, below the cosines.

  Args:
    queries: [R, H, W, 3] in [0, 1].
    neighbours: [R, K, H, W, 3], the nearest first.
    cosines: [R, at least K].
    path: of the PNG.
    agree: [R, K] bool, whether a neighbour has its query's label: it is framed
      in green, otherwise in red. None without labels.
    names: [R][1 + K], the classes of an image and of its neighbours, a line
      each. None without labels.
  """
  rows, columns = neighbours.shape[:2]
  # Inches; the captions take 4.8, and the line of names 0.15.
  names_height = 0.15 if names else 0.0
  width = max(1.1 * (columns + 1), 4.8)
  height = (1.2 + names_height) * rows + 0.4
  fig = figure.Figure(figsize=(width, height), dpi=style.IMAGE_DOTS_PER_INCH)
  grid = fig.subplots(rows, columns + 1, squeeze=False)
  fig.subplots_adjust(
    0.02,
    0.01 + names_height / height,
    0.98,
    1 - 0.55 / height,
    wspace=0.1,
    hspace=0.25 + names_height,
  )
  for row, panels in enumerate(grid):
    for panel in panels:
      panel.set(xticks=[], yticks=[])
      panel.spines[:].set_visible(False)
    panels[0].imshow(style.to_rgb(queries[row]))
    for column, panel in enumerate(panels[1:]):
      panel.imshow(style.to_rgb(neighbours[row, column]))
      panel.set_title(f"{cosines[row, column]:.3f}", size=8, pad=3)
      if agree is not None:
        color = _AGREE_COLOR if agree[row, column] else _DIFFER_COLOR
        panel.spines[:].set(visible=True, color=color, linewidth=2)
    for panel, name in zip(panels, names[row] if names else (), strict=False):
      panel.set_xlabel(name, size=8, labelpad=2, parse_math=False)
  captions = ["image", "nearest neighbours, by cosine"]
  if agree is not None:
    captions[1] += "; red: another class"
  for panel, caption in zip(grid[0, :2], captions, strict=True):
    x = panel.get_position().x0
    fig.text(x, 1 - 0.1 / height, caption, va="top", size=10)
  style.save(fig, path)
