"""Images with the two views that the first step trains on."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import figure

from byol_jax.augment import device_ops
from byol_jax.reporting import style
from byol_jax.training import build, runs

_SHOWN_IMAGES = 4


class Views(NamedTuple):
  """Images and their two views.

  Attributes:
    originals: images [H, W, 3] of any sizes, uint8 or in [0, 1].
    view1: [N, H, W, 3] in [0, 1], one for each original.
    view2: likewise.
  """

  originals: Sequence[np.ndarray]
  view1: np.ndarray
  view2: np.ndarray


def first(run: runs.Run) -> Views:
  """Returns the first views that the first step trains on."""
  views = build.make_views(run.config)
  originals, batch = run.source.first_views(
    views,
    run.config.data,
    count=_SHOWN_IMAGES,
    seed=run.config.seed,
  )
  finished = device_ops.apply_to_batch(views, batch)
  return Views(
    originals, *map(np.asarray, (finished["view1"], finished["view2"]))
  )


def write(run: runs.Run, shown: Views | None = None) -> pathlib.Path:
  """Draws `figures/views.png` and returns it.

  Args:
    run: the run.
    shown: from `first`, which is called if it is None.
  """
  path = style.figure_path(run.workdir, "views")
  settings = dataclasses.asdict(run.config.augment)
  draw(*(shown or first(run)), path, settings)
  return path


def draw(
  originals: Sequence[np.ndarray],
  view1: np.ndarray,
  view2: np.ndarray,
  path: str | os.PathLike,
  settings: Mapping[str, Mapping[str, Any]],
) -> None:
  """Draws images with their two views, above the settings of both.

  Args:
    originals: at most 8 images [H, W, 3] of any sizes, uint8 or in [0, 1].
    view1: [N, H, W, 3] in [0, 1], one for each original.
    view2: likewise.
    path: of the PNG.
    settings: `view1` and `view2`, each a mapping of the same names to values.
  """
  shared, different = _settings_text(settings["view1"], settings["view2"])
  # Inches; a line of text at size 8 takes 0.135.
  images_height = 2.3 * len(originals) + 0.3
  lines = max(shared.count("\n"), different.count("\n")) + 1
  text_height = 0.135 * lines + 0.2
  fig = figure.Figure(
    figsize=(7, images_height + text_height), dpi=style.IMAGE_DOTS_PER_INCH
  )
  parts: Any = fig.subfigures(2, 1, height_ratios=(images_height, text_height))
  images, text = parts
  top = 1 - 0.3 / images_height
  grid = images.subplots(len(originals), 3, squeeze=False)
  images.subplots_adjust(0.02, 0, 0.98, top, wspace=0.03, hspace=0.03)
  triples = zip(originals, view1, view2, strict=True)
  for panels, triple in zip(grid, triples, strict=True):
    for panel, image in zip(panels, triple, strict=True):
      panel.imshow(style.to_rgb(image))
      panel.set_axis_off()
  for x, title in ((0.18, "original"), (0.5, "view 1"), (0.82, "view 2")):
    images.text(x, top, title, ha="center", va="bottom", size=12)
  for x, block in ((0.03, shared), (0.5, different)):
    text.text(
      x, 1 - 0.1 / text_height, block, family="monospace", size=8, va="top"
    )
  style.save(fig, path)


def _settings_text(
  view1: Mapping[str, Any], view2: Mapping[str, Any]
) -> tuple[str, str]:
  """Returns two tables: the settings that both views share, and the others."""
  pairs = {name: (_text(view1[name]), _text(view2[name])) for name in view1}
  name_width = max(map(len, pairs), default=0) + 2
  shared = ["the same for both views"]
  different = [f"{'different':{name_width}}{'view 1':12}view 2"]
  for name, (first, second) in pairs.items():
    if first == second:
      shared.append(f"{name:{name_width}}{first}")
    else:
      different.append(f"{name:{name_width}}{first:12}{second}")
  return "\n".join(shared), "\n".join(different if different[1:] else ())


def _text(value: Any) -> str:
  """Returns a setting as people write it: a range as `0.08 to 1`."""
  if isinstance(value, Sequence) and not isinstance(value, str):
    return " to ".join(map(_text, value))
  return f"{value:.3g}" if isinstance(value, float) else str(value)
