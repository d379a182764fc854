"""Pretraining, from the first step or the last checkpoint to the end."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from byol_jax import errors
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import checkpoints, devices, processes, shutdown, writers
from byol_jax.runtime.meter import Meter, NotFiniteError
from byol_jax.runtime.watchdog import Watchdog
from byol_jax.training import data_streams, memory, workdir_files
from byol_jax.training.runs import Run

# Advice for a run that waits for its data, by `augment.placement`.
_DATA_ADVICE = {
  "host": "augment.placement=device lets an accelerator change colours and blur,"
  " more cores help, and data.cache_bytes if the disk is slow",
  "device": "decoding and cropping are what is left: more cores help, smaller"
  " files, data.cache_bytes if the disk is slow",
}


def pretrain(run: Run) -> tuple[TrainState, bool]:
  """Trains to the end of the plan, from the latest checkpoint if there is one.

  Args:
    run: from `runs.prepare`.

  Returns:
    The final state, which is also the last checkpoint, and whether an earlier
    run had already reached it.

  Raises:
    shutdown.Interrupted: on SIGTERM or Ctrl-C, after saving.
    UserError: if the loss is not finite, devices disagree, or a file cannot be
      written.
  """
  state = processes.broadcast_from_primary(lambda: _starting_state(run))
  if int(state.step) == run.plan.total_steps:
    return state, True
  start = int(state.step)
  state = devices.replicate(state)
  stream = data_streams.train_batches(run.config, run.source, start)
  with _Saver(run) as saver, _open_meter(run, start) as meter:
    try:
      return _train(run, state, stream, saver, meter), False
    except NotFiniteError as error:
      raise errors.UserError(
        f"{error}; the last good checkpoint in"
        f" {workdir_files.checkpoint_folder(run.workdir)} is kept: lower"
        " optimizer.base_learning_rate or raise optimizer.warmup_epochs, in"
        " another --workdir."
      ) from error


def _starting_state(run: Run) -> TrainState:
  """Returns the latest state of the workdir, or the initial one; writes settings."""
  memory.check_batch(run.config)
  shapes = jax.eval_shape(run.initial_state)
  memory.check_state(run.config, shapes)
  workdir_files.write_settings(run.workdir, run.config)
  with run.open_checkpoints() as saved:
    if saved.latest_step() is None:
      state = run.initial_state()
    else:
      state = saved.restore(shapes)
  if int(state.step) < run.plan.total_steps:
    workdir_files.check_space(run.workdir, state, run.config.checkpoint.keep)
  return state


@contextlib.contextmanager
def _open_meter(run: Run, start_step: int) -> Iterator[Meter]:
  """Yields a meter, whose writers exist in the primary process only."""
  outputs: list[writers.Writer] = []
  if processes.is_primary():
    outputs = [
      writers.JsonlWriter(run.workdir / workdir_files.METRICS_FILE, start_step),
      writers.TensorBoardWriter(run.workdir / "tensorboard"),
      writers.ProgressBar(run.plan.total_steps, start_step),
      writers.DataWaitHint(_DATA_ADVICE[run.config.augment.placement]),
    ]
  meter = Meter(
    outputs,
    batch_size=run.config.train.batch_size,
    every_steps=run.config.log.every_steps,
    last_step=run.plan.total_steps,
  )
  try:
    yield meter
  finally:
    meter.close()


def _train(
  run: Run,
  state: TrainState,
  stream: Iterator[dict[str, Any]],
  saver: "_Saver",
  meter: Meter,
) -> TrainState:
  """Makes all steps that are left and returns the last state."""
  first_step, last_step = int(state.step) + 1, run.plan.total_steps
  update = devices.pmap_update(run.learner.update)
  check_every = run.config.train.check_replicas_every
  with (
    shutdown.GracefulShutdown() as stop_request,
    Watchdog(run.config.train.hang_seconds) as watchdog,
  ):
    for step in range(first_step, last_step + 1):
      asked_at = time.monotonic()
      batch = next(stream)
      meter.add_data_wait(time.monotonic() - asked_at)
      state, row = update(state, batch)
      meter.add(step, row)
      watchdog.alive()

      # The first check is early, because it compiles.
      due = check_every and step % check_every == 0
      if due or step in (first_step, last_step):
        _check_replicas(state, step)
      stop = stop_request.stop_signal(step)
      if stop or step == last_step or saver.is_due(step):
        meter.drain()
        _check_finite(state, step)
        saver.save(step, state)
      if stop:
        saver.close()
        processes.barrier()  # No process leaves while the primary is still saving.
        raise shutdown.Interrupted(stop, step)
  return state


class _Saver:
  """Writes checkpoints from the primary process when they are due."""

  def __init__(self, run: Run):
    self._settings = run.config.checkpoint
    self._checkpoints: checkpoints.Checkpoints | None = None
    if processes.is_primary():
      self._checkpoints = run.open_checkpoints()
    self._saved_at = time.monotonic()

  def __enter__(self) -> "_Saver":
    return self

  def __exit__(self, *unused_exc_info) -> None:
    self.close()

  def is_due(self, step: int) -> bool:
    """Returns whether the settings ask for a checkpoint after this step."""
    every_steps = self._settings.every_steps
    waited = time.monotonic() - self._saved_at
    by_time = waited > self._settings.every_seconds > 0
    return by_time or bool(every_steps and step % every_steps == 0)

  def save(self, step: int, state: TrainState) -> None:
    """Begins to write a checkpoint."""
    if self._checkpoints:
      self._checkpoints.save(step, state)
    self._saved_at = time.monotonic()

  def close(self) -> None:
    """Waits until everything is on disk."""
    if self._checkpoints:
      self._checkpoints.close()


def _check_finite(state: TrainState, step: int) -> None:
  """Raises `NotFiniteError` unless all parameters are finite.

  The loss shows a parameter that is not finite a step later.
  """
  params = jax.device_get((state.online_params, state.online_state))
  if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params)):
    raise NotFiniteError(f"A parameter is not finite after step {step}")


def _check_replicas(state: TrainState, step: int) -> None:
  """Raises `UserError` unless all devices hold the same state."""
  if differing := devices.differing_devices(state):
    raise errors.UserError(
      f"After step {step} devices {differing} hold other parameters than device"
      " 0: one of them computes wrongly or lost its state. Leave that machine"
      " out and run the same command again; the last checkpoint is kept."
    )
