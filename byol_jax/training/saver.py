"""Writes the checkpoints of a training when they are due."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from byol_jax.learning.learner import TrainState
from byol_jax.runtime import checkpoints, processes, writers
from byol_jax.training import workdir_files
from byol_jax.training.runs import Run

# The metric that a checkpoint is best by; higher is better.
BEST_BY = "held_out/knn"


@dataclasses.dataclass
class _Best:
  """The best checkpoint so far, as a policy of orbax that keeps it."""

  step: int | None = None
  value: float = -1.0

  def offer(self, step: int, value: float) -> bool:
    """Takes a step unless it is worse than the best one; returns whether."""
    if value < self.value:
      return False
    self.step, self.value = step, value
    return True

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    """Returns which checkpoints are to be kept."""
    del context
    return [info.step == self.step for info in checkpoints]


class Saver:
  """Writes checkpoints from the primary process when they are due.

  Args:
    run: the run.
    first: the step that training goes on from.
  """

  def __init__(self, run: Run, first: int):
    self._settings = run.config.checkpoint
    self._best = _Best()
    self._checkpoints: checkpoints.Checkpoints | None = None
    if processes.is_primary():
      if self._settings.keep_best:
        self._offer_earlier(run, first)
      self._checkpoints = run.open_checkpoints(self._best)
      self._checkpoints.set_aside_above(first)
    self._saved_at = time.monotonic()

  def __enter__(self) -> "Saver":
    return self

  def __exit__(self, *unused_exc_info) -> None:
    self.close()

  def is_due(self, step: int) -> bool:
    """Returns whether the settings ask for a checkpoint after this step."""
    waited = time.monotonic() - self._saved_at
    by_time = waited > self._settings.every_seconds > 0
    steps = (self._settings.every_steps, self._settings.keep_every)
    return by_time or any(every and step % every == 0 for every in steps)

  def is_best(self, step: int, scalars: Mapping[str, Any]) -> bool:
    """Returns whether the state after a step is to be kept as the best so far.

    Args:
      step: its number.
      scalars: by name; nothing is compared without `BEST_BY`.
    """
    is_compared = self._settings.keep_best and BEST_BY in scalars
    return is_compared and self._best.offer(step, scalars[BEST_BY])

  def _offer_earlier(self, run: Run, first: int) -> None:
    """Finds the best checkpoint of an earlier part of the run."""
    saved = workdir_files.checkpoint_steps(run.workdir)
    path = run.workdir / workdir_files.EVALUATIONS_FILE
    for row in writers.read_jsonl(path):
      if row["step"] in saved and row["step"] <= first and row.get(BEST_BY):
        self._best.offer(row["step"], row[BEST_BY])

  def save(self, step: int, state: TrainState) -> None:
    """Begins to write a checkpoint."""
    if self._checkpoints:
      self._checkpoints.save(step, state)
    self._saved_at = time.monotonic()

  def close(self) -> None:
    """Waits until everything is on disk."""
    if self._checkpoints:
      self._checkpoints.close()
