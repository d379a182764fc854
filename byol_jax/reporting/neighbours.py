"""Images beside their nearest neighbours."""

import os

import numpy as np
from matplotlib import figure

from byol_jax.reporting import style

_AGREE_COLOUR = "#2a8f4f"

_DIFFER_COLOUR = "#c0392b"


def draw(
  queries: np.ndarray,
  neighbours: np.ndarray,
  cosines: np.ndarray,
  path: str | os.PathLike,
  agree: np.ndarray | None = None,
) -> None:
  """Draws images beside their nearest neighbours, with the cosines above.

  Args:
    queries: [R, S, S, 3] in [0, 1].
    neighbours: [R, K, S, S, 3], best first.
    cosines: [R, at least K].
    path: of the PNG.
    agree: [R, K], whether a neighbour has its query's label: framed in green,
      otherwise in red; None where there are no labels.
  """
  rows, columns = neighbours.shape[:2]
  # Inches; the captions take 4.8.
  width, height = max(1.1 * (columns + 1), 4.8), 1.2 * rows + 0.4
  fig = figure.Figure(figsize=(width, height), dpi=1.5 * style.DOTS_PER_INCH)
  grid = fig.subplots(rows, columns + 1, squeeze=False)
  fig.subplots_adjust(
    0.02, 0.01, 0.98, 1 - 0.55 / height, wspace=0.1, hspace=0.25
  )
  for row, panels in enumerate(grid):
    for panel in panels:
      panel.set(xticks=[], yticks=[])
      panel.spines[:].set_visible(False)
    panels[0].imshow(style.coloured(queries[row]))
    for column, panel in enumerate(panels[1:]):
      panel.imshow(style.coloured(neighbours[row, column]))
      panel.set_title(f"{cosines[row, column]:.3f}", size=8, pad=3)
      if agree is not None:
        color = _AGREE_COLOUR if agree[row, column] else _DIFFER_COLOUR
        panel.spines[:].set(visible=True, color=color, linewidth=2)
  captions = ["image", "nearest neighbours, by cosine"]
  if agree is not None:
    captions[1] += "; red: another class"
  for panel, caption in zip(grid[0, :2], captions, strict=True):
    x = panel.get_position().x0
    fig.text(x, 1 - 0.1 / height, caption, va="top", size=10)
  fig.savefig(path)
