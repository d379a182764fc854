"""Collects metrics from the device and hands their means to writers."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from byol_jax.runtime.writers import ProgressBar, Writer

# Steps that the device may have in flight before the host reads their metrics:
# enough that the device never waits for the host, few enough that the host does
# not run away.
_MAX_IN_FLIGHT = 2


class DivergedError(Exception):
  """The loss is not finite, or a parameter has left every sensible range."""


class Meter:
  """Averages metrics over intervals of steps and measures the speed.

  Rates leave out the first step, which waits for compilation.

  Args:
    writers: receive the scalars of each interval.
    bar: is moved by each step whose metrics have come.
    batch_size: images in a step.
    every_steps: steps in an interval.
    last_step: ends the last interval, which may be shorter.
  """

  def __init__(
    self,
    writers: Sequence[Writer],
    bar: ProgressBar | None = None,
    *,
    batch_size: int,
    every_steps: int,
    last_step: int,
  ):
    self._writers = writers
    self._bar = bar
    self._batch_size = batch_size
    self._every_steps = every_steps
    self._last_step = last_step
    # Steps whose metrics are still on the device.
    self._in_flight: list[tuple[int, Mapping[str, Any], Mapping[str, Any]]] = []
    # Metrics of the current interval, on the host.
    self._rows: list[dict[str, float]] = []
    self._single: dict[str, float] = {}  # Those that are no means, likewise.
    self._timed_since: float | None = None
    self._untimed_rows = 0  # Rows of the interval from before `_timed_since`.
    self._data_wait = 0.0  # Seconds spent waiting for data since then.

  def add_data_wait(self, seconds: float) -> None:
    """Adds time that the training loop spent waiting for data."""
    self._data_wait += seconds

  def add(
    self,
    step: int,
    row: Mapping[str, jax.Array],
    single: Mapping[str, Any] | None = None,
  ) -> None:
    """Takes the metrics of a step without waiting for them.

    Args:
      step: its number, from 1.
      row: must hold `loss`; each interval's last row also `tau` and
        `learning_rate`.
      single: scalars that not every step has; the interval's latest are written.

    Raises:
      DivergedError: the loss of this or an earlier step is not finite.
    """
    self._in_flight.append((step, row, single or {}))
    if len(self._in_flight) > _MAX_IN_FLIGHT:
      self._fetch()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Hands scalars, if there are any, to the writers."""
    for writer in self._writers if scalars else ():
      writer.write(step, scalars)

  def drain(self) -> None:
    """Writes the metrics of all steps up to now; raises like `add`."""
    while self._in_flight:
      self._fetch()
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    """Closes the writers."""
    for writer in self._writers:
      writer.close()

  def _fetch(self) -> None:
    """Moves the oldest row to the host and ends an interval if it is due."""
    step, on_device, single = self._in_flight.pop(0)
    row = jax.device_get(on_device)
    if not math.isfinite(row["loss"]):
      raise DivergedError(f"The loss is {row['loss']} at step {step}")
    self._rows.append({f"train/{name}": row[name] for name in row})
    self._single |= jax.device_get(single)
    if step % self._every_steps == 0 or step == self._last_step:
      self._end_interval(step)
      self._rows = []
      self._single = {}
      self._start_clock()
    elif self._timed_since is None:
      self._start_clock()
    if self._bar:
      self._bar.update(step)

  def _start_clock(self) -> None:
    self._timed_since = time.monotonic()
    self._untimed_rows = len(self._rows)
    self._data_wait = 0.0

  def _end_interval(self, step: int) -> None:
    last = self._rows[-1]
    scalars = {
      **mean_over_rows(self._rows),
      "train/tau": last["train/tau"],
      "train/learning_rate": last["train/learning_rate"],
    }
    if self._timed_since is not None:
      seconds = time.monotonic() - self._timed_since
      images = (len(self._rows) - self._untimed_rows) * self._batch_size
      scalars["train/images_per_second"] = images / seconds
      scalars["train/data_wait"] = min(self._data_wait / seconds, 1.0)
    self.write(step, scalars | self._single)


def mean_over_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the mean of each scalar, in float64.

  Args:
    rows: all with the same names.

  Returns:
    Name to mean; {} without rows.
  """
  return {
    name: float(np.mean([row[name] for row in rows], dtype=np.float64))
    for name in (rows[0] if rows else ())
  }
