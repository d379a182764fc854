"""The curves of a pretraining run: loss, accuracy, tau, learning rate."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes, ticker

from byol_jax.reporting import style
from byol_jax.runtime import writers
from byol_jax.training import runs, workdir_files

# A row of `metrics.jsonl`.
Row = Mapping[str, float | None]


def is_available(run: runs.Run) -> bool:
  """Returns whether the run has logged anything."""
  return bool(_read_rows(run))


def write(run: runs.Run) -> pathlib.Path:
  """Draws `figures/curves.png` of a run, finished or not, and returns it."""
  path = style.figure_path(run.workdir, "curves")
  draw(_read_rows(run), path, run.plan.steps_per_epoch)
  return path


def _read_rows(run: runs.Run) -> list[dict[str, float | None]]:
  return writers.read_jsonl(run.workdir / workdir_files.METRICS_FILE)


def draw(
  rows: Sequence[Row],
  path: str | os.PathLike,
  steps_per_epoch: float | None = None,
) -> None:
  """Draws four panels: loss, accuracy, tau and learning rate.

  Args:
    rows: of `metrics.jsonl`, by step; a row may lack any name but `step`.
    path: of the PNG, 1200 x 800 pixels.
    steps_per_epoch: adds a scale in epochs to the scale in steps.
  """
  fig, ((loss, accuracy), (tau, rate)) = style.new_panels(12, 8, 2, 2)

  loss.set_title("BYOL loss (range 0 to 8; 0: both views predict each other)")
  _draw_curve(loss, rows, "train/repr_loss")
  loss.set_ylim(bottom=0)

  accuracy.set_title("Accuracy of the online classifier on training batches")
  _draw_curve(
    accuracy,
    rows,
    "train/top5_accuracy",
    color=style.SECOND_COLOR,
    label="top-5",
  )
  _draw_curve(accuracy, rows, "train/top1_accuracy", label="top-1")
  accuracy.set_ylim(0, 1)
  accuracy.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  if accuracy.lines:
    accuracy.legend(loc="best", frameon=False)

  tau.set_title("tau: fraction of the target network kept at each step")
  _draw_curve(tau, rows, "train/tau", smooth=False)
  tau.ticklabel_format(axis="y", useOffset=False)
  tau.set_ylim(top=1)

  rate.set_title("Learning rate")
  _draw_curve(rate, rows, "train/learning_rate", smooth=False)
  rate.set_ylim(bottom=0)

  for panel in (loss, accuracy, tau, rate):
    _finish_panel(panel, steps_per_epoch)
  style.save(fig, path)


def _draw_curve(
  panel: axes.Axes,
  rows: Sequence[Row],
  name: str,
  *,
  smooth: bool = True,
  color: str = style.FIRST_COLOR,
  label: str | None = None,
) -> None:
  """Draws one metric, smoothed if it has many points, before its raw values."""
  # Null in the file, None here, stands for a value that was not finite.
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
    values = moving_mean(values, width)
  panel.plot(steps, values, color=color, label=label, marker=marker)


def moving_mean(values: np.ndarray, width: int) -> np.ndarray:
  """Returns means over `width` neighbours on either side, fewer at the ends."""
  window = np.ones(2 * width + 1)
  total = np.convolve(values, window)[width:-width]
  return total / np.convolve(np.ones_like(values), window)[width:-width]


def _finish_panel(panel: axes.Axes, steps_per_epoch: float | None) -> None:
  """Adds scales and grid, and a note where nothing is logged yet."""
  style.finish_panel(panel)
  panel.set_xlabel("step")
  panel.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
  panel.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
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
