"""Figures of a run: its learning curves and what the augmentations do."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes, figure, layout_engine, ticker

from byol_jax import errors, input_pipeline, metrics, train

_COLOUR = "#1f5fa8"
_SECOND_COLOUR = "#d1742a"
_DOTS_PER_INCH = 100
_SHOWN_IMAGES = 4


def write(run: train.Run) -> None:
  """Draws `figures/curves.png` and `figures/views.png` of a workdir.

  Args:
    run: from `train.prepare`; it may still be training.
  """
  rows = metrics.read_jsonl(run.workdir / "metrics.jsonl")
  if not rows:
    raise errors.UserError(
      f"{run.workdir} has no metrics.jsonl to draw; pretrain first."
    )
  try:
    _draw(run, rows)
  except OSError as error:
    raise errors.UserError(
      f"Cannot draw to {run.workdir}: {error.strerror}; free space there and"
      " run with --mode=report."
    ) from error


def _draw(run: train.Run, rows: Sequence[Mapping[str, float | None]]) -> None:
  figures = run.workdir / "figures"
  figures.mkdir(exist_ok=True)
  steps_per_epoch = run.plan.num_examples / run.config.train.batch_size
  draw_curves(rows, figures / "curves.png", steps_per_epoch)
  originals, view1, view2 = zip(
    *input_pipeline.first_views(
      run.source, _SHOWN_IMAGES, **train.stream_options(run)
    ),
    strict=True,
  )
  draw_views(originals, view1, view2, figures / "views.png", run.config.augment)


def draw_curves(
  rows: Sequence[Mapping[str, float | None]],
  path: str | os.PathLike,
  steps_per_epoch: float | None = None,
) -> None:
  """Draws a pretraining run as four panels: loss, accuracy, tau, rate.

  Args:
    rows: of `metrics.jsonl`, by step; a row may lack any name but `step`.
    path: of the PNG, 1200 x 800 pixels.
    steps_per_epoch: adds a scale in epochs to the scale in steps.
  """
  layout = layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
  fig = figure.Figure(figsize=(12, 8), dpi=_DOTS_PER_INCH, layout=layout)
  (loss, accuracy), (tau, rate) = fig.subplots(2, 2)

  loss.set_title("BYOL loss (range 0 to 8; 0: both views predict each other)")
  _draw_curve(loss, rows, "train/repr_loss")
  loss.set_ylim(bottom=0)

  accuracy.set_title("Accuracy of the online classifier on training batches")
  _draw_curve(
    accuracy, rows, "train/top5_accuracy", color=_SECOND_COLOUR, label="top-5"
  )
  _draw_curve(accuracy, rows, "train/top1_accuracy", label="top-1")
  accuracy.set_ylim(0, 1)
  accuracy.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  if accuracy.lines:
    accuracy.legend(loc="best", frameon=False)

  tau.set_title("tau: share of the target network kept at each step")
  _draw_curve(tau, rows, "train/tau", smooth=False)
  tau.ticklabel_format(axis="y", useOffset=False)
  tau.set_ylim(top=1)

  rate.set_title("Learning rate")
  _draw_curve(rate, rows, "train/learning_rate", smooth=False)
  rate.set_ylim(bottom=0)

  for panel in (loss, accuracy, tau, rate):
    _finish_panel(panel, steps_per_epoch)
  fig.savefig(path)


def draw_views(
  originals: Sequence[np.ndarray],
  view1: np.ndarray,
  view2: np.ndarray,
  path: str | os.PathLike,
  settings: Mapping[str, Mapping[str, Any]],
) -> None:
  """Draws images beside their two views, with the settings of both below.

  Args:
    originals: at most 8 images [H, W, 3] of any sizes, uint8 or in [0, 1].
    view1: [N, S, S, 3] in [0, 1], one for each original.
    view2: likewise.
    path: of the PNG.
    settings: `view1` and `view2`, each mapping the same names to values.
  """
  shared, different = _settings_text(settings["view1"], settings["view2"])
  # Inches; a line of text at size 8 takes 0.135.
  images_height = 2.3 * len(originals) + 0.3
  lines = max(shared.count("\n"), different.count("\n")) + 1
  text_height = 0.135 * lines + 0.2
  fig = figure.Figure(
    figsize=(7, images_height + text_height), dpi=1.5 * _DOTS_PER_INCH
  )
  parts: Any = fig.subfigures(2, 1, height_ratios=(images_height, text_height))
  images, text = parts
  top = 1 - 0.3 / images_height
  grid = images.subplots(len(originals), 3, squeeze=False)
  images.subplots_adjust(0.02, 0, 0.98, top, wspace=0.03, hspace=0.03)
  triples = zip(originals, view1, view2, strict=True)
  for panels, triple in zip(grid, triples, strict=True):
    for panel, image in zip(panels, triple, strict=True):
      panel.imshow(image)
      panel.set_axis_off()
  for x, title in ((0.18, "original"), (0.5, "view 1"), (0.82, "view 2")):
    images.text(x, top, title, ha="center", va="bottom", size=12)
  for x, block in ((0.03, shared), (0.5, different)):
    text.text(
      x, 1 - 0.1 / text_height, block, family="monospace", size=8, va="top"
    )
  fig.savefig(path)


def _draw_curve(
  panel: axes.Axes,
  rows: Sequence[Mapping[str, float | None]],
  name: str,
  smooth: bool = True,
  color: str = _COLOUR,
  label: str | None = None,
) -> None:
  """Draws one metric; a noisy one smoothed, with what was measured behind."""
  # Null in the file, None here, stands for what was not finite.
  points = [
    (row["step"], row[name]) for row in rows if row.get(name) is not None
  ]
  if not points:
    return
  steps, values = np.array(points, dtype=np.float64).T
  marker = "o" if len(points) == 1 else None
  width = len(points) // 50 if smooth else 0  # Of the window, on either side.
  if width:
    panel.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    values = _moving_mean(values, width)
  panel.plot(steps, values, color=color, label=label, marker=marker)


def _moving_mean(values: np.ndarray, width: int) -> np.ndarray:
  """The mean over `width` neighbours on either side, fewer at the ends."""
  window = np.ones(2 * width + 1)
  total = np.convolve(values, window)[width:-width]
  return total / np.convolve(np.ones_like(values), window)[width:-width]


def _finish_panel(panel: axes.Axes, steps_per_epoch: float | None) -> None:
  """Scales, grid, and a word where there is nothing to see yet."""
  panel.set_xlabel("step")
  panel.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
  panel.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
  panel.grid(alpha=0.3)
  panel.spines[["top", "right"]].set_visible(False)
  panel.margins(x=0.02)
  panel.set_xlim(left=0)
  if not panel.lines:
    panel.text(
      0.5, 0.5, "nothing logged yet", ha="center", transform=panel.transAxes
    )
    panel.set(xticks=[], yticks=[])
  elif steps_per_epoch:

    def to_epoch(step: Any) -> Any:
      return step / steps_per_epoch

    def to_step(epoch: Any) -> Any:
      return epoch * steps_per_epoch

    epochs = panel.secondary_xaxis(-0.17, functions=(to_epoch, to_step))
    epochs.set_xlabel("epoch")


def _settings_text(
  view1: Mapping[str, Any], view2: Mapping[str, Any]
) -> tuple[str, str]:
  """Two tables: the settings both views share, and those that differ."""
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
  """A setting as people write it: a range as `0.08 to 1`."""
  if isinstance(value, Sequence) and not isinstance(value, str):
    return " to ".join(map(_text, value))
  return f"{value:.3g}" if isinstance(value, float) else str(value)
