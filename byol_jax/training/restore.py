"""States of checkpoints, for all modes but training."""

import time
from collections.abc import Iterator

import jax

from byol_jax import errors
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import checkpoints, processes
from byol_jax.training import workdir_files
from byol_jax.training.runs import Run

_POLL_SECONDS = 5.0


def restore(run: Run, step: int | None = None) -> TrainState:
  """Returns the state of a checkpoint, in all processes.

  Args:
    run: from `runs.prepare`.
    step: the checkpoint's step; by default the latest.

  Raises:
    UserError: if there is no such checkpoint, or it cannot be read.
  """
  return processes.broadcast_from_primary(lambda: _read(run, step))


def watch(run: Run) -> Iterator[TrainState]:
  """Yields the latest state whenever there is a new one, until the last step.

  It serves a program that runs at the same time as training. Checkpoints that are
  written while the caller is busy, and damaged ones, are skipped.
  """
  seen, step = -1, -1
  while step < run.plan.total_steps:
    latest = processes.broadcast_from_primary(lambda: _latest_step(run))
    if latest == seen:
      time.sleep(_POLL_SECONDS)
      continue
    seen = latest
    # The step just seen may be deleted or damaged by now.
    state = processes.broadcast_from_primary(lambda: _read_if_possible(run))
    if state and int(state.step) > step:
      step = int(state.step)
      yield state


def _latest_step(run: Run) -> int:
  """Returns the step of the latest checkpoint, -1 without one."""
  return max(workdir_files.checkpoint_steps(run.workdir), default=-1)


def _read(run: Run, step: int | None = None) -> TrainState:
  """Reads a checkpoint in this process; see `restore`."""
  with run.open_checkpoints() as saved:
    if saved.latest_step() is None:
      raise errors.UserError(
        f"{run.workdir} holds no checkpoint yet; pretrain first."
      )
    return saved.restore(jax.eval_shape(run.initial_state), step)


def _read_if_possible(run: Run) -> TrainState | None:
  """Reads the latest checkpoint; returns None if all are damaged."""
  try:
    return _read(run)
  except checkpoints.DamagedError:
    return None
