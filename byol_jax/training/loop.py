"""Pretraining, from the first step or the last checkpoint to the end."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from byol_jax import errors
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import (
  claim,
  devices,
  processes,
  shutdown,
  writers,
)
from byol_jax.runtime.meter import DivergedError, Meter
from byol_jax.runtime.watchdog import Watchdog
from byol_jax.training import (
  build,
  data_streams,
  health,
  memory,
  outputs,
  saved_settings,
  workdir_files,
)
from byol_jax.training.runs import Run
from byol_jax.training.saver import Saver

# The largest parameter of a healthy run. Our choice: the float32 numbers above it
# are at least 2 apart, so a parameter can no longer change by less than that, while
# initial parameters are at most 1. In a healthy run scales and biases stay near 1,
# and weight decay bounds the weights before a batch norm.
_LARGEST_PARAMETER = 2.0**24

# Advice for a run that waits for its data, by `augment.placement`.
_DATA_ADVICE = {
  "host": "augment.placement=device lets an accelerator change colours and blur,"
  " more cores help, and data.cache_bytes if the disk is slow",
  "device": "decoding and cropping are what is left: more cores help, smaller"
  " files, data.cache_bytes if the disk is slow",
}


class Start(NamedTuple):
  """What a new run begins with.

  Attributes:
    state: before the first update.
    started_from: where its encoder comes from, for `config.json`; None if it is
      not trained.
  """

  state: TrainState
  started_from: Mapping[str, Any] | None = None


def untrained(run: Run) -> Start:
  """Begins a run with random weights."""
  return Start(run.initial_state())


class Monitor(Protocol):
  """Evaluates states while they train; the same in all processes."""

  def is_due(self, step: int) -> bool:
    """Returns whether the state after a step is to be evaluated."""

  def __call__(self, state: TrainState) -> dict[str, float]:
    """Returns the metrics of a state by name."""


def pretrain(
  run: Run,
  start: Callable[[Run], Start] = untrained,
  on_start: Callable[[Run, int], None] = lambda run, step: None,
  tell: Callable[[str], None] = lambda line: None,
  monitor: Monitor | None = None,
) -> tuple[TrainState, bool]:
  """Trains to the end of the plan, from the latest checkpoint if there is one.

  Meanwhile the workdir belongs to this training, see `claim.Claim`.

  Args:
    run: from `runs.prepare`.
    start: begins a new run, called in the primary process only.
    on_start: is called with the run and the step to train on from, unless that is
      the last one.
    tell: prints a line for people, such as one about another training in the
      workdir.
    monitor: evaluates the steps that it chooses.

  Returns:
    The final state, which is also the last checkpoint, and whether an earlier
    run had already reached it.

  Raises:
    shutdown.Interrupted: on SIGTERM or Ctrl-C, after saving.
    UserError: if a writer is unknown or not installed, another training uses the
      workdir, the loss is not finite, devices disagree, or a file cannot be written.
  """
  outputs.check(run.config)
  with _claimed(run, tell):
    state = processes.broadcast_from_primary(
      lambda: _starting_state(run, start)
    )
    first = int(state.step)
    if first >= run.plan.total_steps:  # An imported state may be beyond it.
      return state, True
    on_start(run, first)
    state = devices.replicate(state)
    stream = data_streams.train_batches(run.config, run.source, first, tell)
    with Saver(run, first) as saver, _open_meter(run, first) as meter:
      try:
        return _train(run, state, stream, saver, meter, monitor), False
      except DivergedError as error:
        raise errors.UserError(
          f"{error}; the earlier checkpoints in"
          f" {workdir_files.checkpoint_folder(run.workdir)} are kept: lower"
          " optimizer.base_learning_rate, or raise optimizer.warmup_epochs or"
          " optimizer.weight_decay, in another --workdir."
        ) from error


@contextlib.contextmanager
def _claimed(run: Run, tell: Callable[[str], None]) -> Iterator[None]:
  """Claims the workdir by the primary process, whose refusal ends all."""
  with contextlib.ExitStack() as held:

    def hold() -> None:
      held.enter_context(claim.Claim(run.workdir, tell))

    processes.broadcast_from_primary(hold)
    yield


def _starting_state(run: Run, start: Callable[[Run], Start]) -> TrainState:
  """Returns the latest state of the workdir, or a new one."""
  source = run.source
  saved_settings.check_images(run.workdir, run.config, source.fingerprint)
  memory.check_batch(run.config)
  shapes = jax.eval_shape(run.initial_state)
  memory.check_state(run.config, shapes)
  history: dict[str, Any] = {}
  with run.open_checkpoints() as saved:
    if saved.latest_step() is None:
      state, started_from = start(run)
      if started_from:
        history["started_from"] = started_from
    else:
      state = saved.restore(shapes)
      history = saved_settings.read_history(run.workdir)
  if int(state.step) < run.plan.total_steps:
    workdir_files.check_space(
      run.workdir, state, run.config.checkpoint, run.plan.total_steps
    )
  # An earlier attempt to train longer may have stopped before it saved a step.
  ends = {*history.pop("extended_at", ()), run.extends} - {None}
  if earlier := sorted(ends - {run.plan.total_steps}):
    history["extended_at"] = earlier
  saved_settings.write(run.workdir, run.config, source.fingerprint, history)
  workdir_files.add_class_names(
    run.workdir, source.dataset.tfds_name, source.class_names
  )
  return state


@contextlib.contextmanager
def _open_meter(run: Run, start_step: int) -> Iterator[Meter]:
  """Yields a meter, whose writers exist in the primary process only."""
  opened: list[writers.Writer] = []
  bar = None
  if processes.is_primary():
    bar = writers.ProgressBar(run.plan.total_steps, start_step)
    opened = [
      *outputs.open_writers(run, start_step),
      bar,
      writers.DataWaitHint(_DATA_ADVICE[run.config.augment.placement]),
      health.Note(run),
    ]
  meter = Meter(
    opened,
    bar,
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
  saver: Saver,
  meter: Meter,
  monitor: Monitor | None,
) -> TrainState:
  """Makes all steps that are left and returns the last state."""
  first_step, last_step = int(state.step) + 1, run.plan.total_steps
  learn: Callable[..., Any] = run.learner.update
  doctor = out_axes = None
  if run.config.log.diagnose:
    learn = build.build_observed_update(run.config, run.learner)
    doctor = health.Doctor(run, first_step)
    out_axes = (None, None, health.EVIDENCE_AXES)
  if several := processes.is_multiprocess():
    learn = devices.with_signals(learn)
  update = devices.pmap_update(learn, out_axes=out_axes)
  check_every = run.config.train.check_replicas_every
  with (
    shutdown.GracefulShutdown() as stop_request,
    Watchdog(run.config.train.hang_seconds) as watchdog,
  ):
    for step in range(first_step, last_step + 1):
      asked_at = time.monotonic()
      examples = next(stream)
      meter.add_data_wait(time.monotonic() - asked_at)
      if several:
        signals = devices.local_signals(stop_request.received)
        examples = {**examples, "signal": signals}
      state, row, *evidence = update(state, examples)
      told = row.pop("signal", None)
      single: dict[str, Any] = {}
      if doctor:
        if step == first_step:
          diagnosis = doctor.start(*evidence)
          if step == 1:  # Otherwise an earlier training has written it.
            meter.write(0, diagnosis)
        single = doctor.after(step, *evidence)
      if monitor and monitor.is_due(step):
        single |= monitor(state)
      meter.add(step, row, single)
      watchdog.alive()
      # The first check is early, because it compiles.
      due = check_every and step % check_every == 0
      if due or step in (first_step, last_step):
        _check_replicas(state, step)
      stop = stop_request.stop_signal(told, is_last=step == last_step)
      is_best = saver.is_best(step, single)
      if stop or is_best or step == last_step or saver.is_due(step):
        meter.drain()
        check_parameters(state, step)
        saver.save(step, state)
      if stop or step == last_step:
        saver.close()
        processes.barrier()  # No process leaves while the primary is still saving.
      if stop:
        raise shutdown.Interrupted(stop, step)
  return state


def check_parameters(state: TrainState, step: int) -> None:
  """Raises `DivergedError` unless the online network is in a sensible range.

  The loss shows a parameter that is not finite a step later, and one that is too
  large never, since predictions are normalised.

  Args:
    state: after the step.
    step: its number, for the message.
  """
  params, statistics = jax.device_get((state.online_params, state.online_state))
  leaves = jax.tree.leaves(params)
  if not all(
    np.all(np.isfinite(x)) for x in [*leaves, *jax.tree.leaves(statistics)]
  ):
    raise DivergedError(f"A parameter is not finite after step {step}")
  largest = max(float(np.max(np.abs(leaf))) for leaf in leaves)
  if largest > _LARGEST_PARAMETER:
    raise DivergedError(
      f"A parameter has grown to {largest:.2g} after step {step}, and no healthy"
      f" run goes above {_LARGEST_PARAMETER:.2g}"
    )


def _check_replicas(state: TrainState, step: int) -> None:
  """Raises `UserError` unless all devices hold the same state."""
  if differing := devices.differing_devices(state):
    raise errors.UserError(
      f"After step {step} devices {differing} hold other parameters than device"
      " 0: one of them computes wrongly or lost its state. Leave that machine"
      " out and run the same command again; the last checkpoint is kept."
    )
