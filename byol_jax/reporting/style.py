"""The style and the place of all pictures."""

import os
import pathlib
import warnings

import numpy as np
from matplotlib import axes, figure, layout_engine

from byol_jax.augment import spec
from byol_jax.runtime import files

FIRST_COLOR = "#1f5fa8"
SECOND_COLOR = "#d1742a"
DOTS_PER_INCH = 100
IMAGE_DOTS_PER_INCH = 150  # Of pictures that show images.

# Of a picture or a page that cannot be written.
REMEDY = "free space there and run with --mode=report"


def new_panels(width: float, height: float, rows: int, columns: int):
  """Returns a figure and its grid of panels for curves.

  Args:
    width: in inches.
    height: likewise.
    rows: of panels.
    columns: likewise.

  Returns:
    The figure, and its axes as [rows, columns] objects.
  """
  fig = figure.Figure(
    figsize=(width, height),
    dpi=DOTS_PER_INCH,
    layout=layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
  )
  return fig, fig.subplots(rows, columns, squeeze=False)


def finish_panel(panel: axes.Axes) -> None:
  """Adds the grid, and removes the frame where there is no scale."""
  panel.grid(alpha=0.3)
  panel.spines[["top", "right"]].set_visible(False)


def to_rgb(image: np.ndarray) -> np.ndarray:
  """Returns an image [H, W, C] with three channels, for people to see.

  Of more than three channels, these are the first ones; of two, the first one.
  """
  if image.dtype == np.uint16:
    image = image / np.float32(spec.white(image.dtype))
  shown = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
  return np.broadcast_to(shown, (*image.shape[:2], 3))


def figure_path(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where a workdir keeps its picture `name`."""
  return workdir / "figures" / f"{name}.png"


def save(fig: figure.Figure, path: str | os.PathLike) -> None:
  """Writes a figure as a PNG; raises `UserError` if it cannot be written."""
  path = files.to_path(path)
  with files.atomic_write(path, REMEDY) as file, warnings.catch_warnings():
    # Names of classes may have letters that matplotlib's font lacks.
    warnings.filterwarnings("ignore", "Glyph .* missing from font")
    fig.savefig(file)
