"""The curves of a pretraining run."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes, figure, layout_engine, ticker

from byol_jax.reporting import style


def draw(
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
  fig = figure.Figure(figsize=(12, 8), dpi=style.DOTS_PER_INCH, layout=layout)
  (loss, accuracy), (tau, rate) = fig.subplots(2, 2)

  loss.set_title("BYOL loss (range 0 to 8; 0: both views predict each other)")
  _draw_curve(loss, rows, "train/repr_loss")
  loss.set_ylim(bottom=0)

  accuracy.set_title("Accuracy of the online classifier on training batches")
  _draw_curve(
    accuracy,
    rows,
    "train/top5_accuracy",
    color=style.SECOND_COLOUR,
    label="top-5",
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


def _draw_curve(
  panel: axes.Axes,
  rows: Sequence[Mapping[str, float | None]],
  name: str,
  smooth: bool = True,
  color: str = style.COLOUR,
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
