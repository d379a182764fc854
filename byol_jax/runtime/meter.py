"""The mean of each metric and the speed, every so many steps."""

import math
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from byol_jax.runtime.writers import Writer

# Steps that the device may be behind: enough that it never waits for the host
# to look at a metric, few enough that the host does not run away.
_LAG = 2


class NotFiniteError(Exception):
  """Training has gone to NaN or infinity."""


class Meter:
  """Collects what the device reports and writes it every so many steps.

  Rates leave out the first step, which waits for compilation.
  """

  def __init__(
    self,
    writers: Sequence[Writer],
    *,
    batch_size: int,
    every_steps: int,
    last_step: int,
  ):
    self._writers = writers
    self._batch_size = batch_size
    self._every_steps = every_steps
    self._last_step = last_step
    # Steps and their metrics, still on the device.
    self._in_flight: list[tuple[int, Mapping[str, jax.Array]]] = []
    # Of the current interval, on the host.
    self._rows: list[dict[str, float]] = []
    self._since: float | None = None  # When timing began.
    self._untimed = 0  # Rows of the interval from before that.
    self._waited = 0.0  # Seconds since then spent on waiting for data.

  def add_data_wait(self, seconds: float) -> None:
    """Counts time spent on waiting for data."""
    self._waited += seconds

  def add(self, step: int, row: Mapping[str, jax.Array]) -> None:
    """Takes the metrics of a step without waiting for them.

    Raises:
      NotFiniteError: the loss of this or an earlier step is not finite.
    """
    self._in_flight.append((step, row))
    if len(self._in_flight) > _LAG:
      self._fetch()

  def drain(self) -> None:
    """Waits for the metrics of all steps; raises like `add`."""
    while self._in_flight:
      self._fetch()

  def close(self) -> None:
    """Closes the writers."""
    for writer in self._writers:
      writer.close()

  def _fetch(self) -> None:
    step, on_device = self._in_flight.pop(0)
    row = jax.device_get(on_device)
    if not math.isfinite(row["loss"]):
      raise NotFiniteError(f"The loss is {row['loss']} at step {step}")
    self._rows.append({f"train/{name}": row[name] for name in row})
    if step % self._every_steps == 0 or step == self._last_step:
      self._write(step)
      self._rows = []
      self._start_clock()
    elif self._since is None:
      self._start_clock()

  def _start_clock(self) -> None:
    self._since = time.monotonic()
    self._untimed = len(self._rows)
    self._waited = 0.0

  def _write(self, step: int) -> None:
    last = self._rows[-1]
    scalars = {
      **mean_over_rows(self._rows),
      "train/tau": last["train/tau"],
      "train/learning_rate": last["train/learning_rate"],
    }
    if self._since is not None:
      seconds = time.monotonic() - self._since
      images = (len(self._rows) - self._untimed) * self._batch_size
      scalars["train/images_per_second"] = images / seconds
      scalars["train/data_wait"] = min(self._waited / seconds, 1.0)
    for writer in self._writers:
      writer.write(step, scalars)


def mean_over_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the mean of each scalar over `rows`, which name the same ones."""
  return {
    name: float(np.mean([row[name] for row in rows], dtype=np.float64))
    for name in (rows[0] if rows else ())
  }
