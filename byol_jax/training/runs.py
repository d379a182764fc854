"""Pretraining: from a configuration to a trained state in a workdir."""

import contextlib
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import errors
from byol_jax.augment import device_ops
from byol_jax.config import Config
from byol_jax.data import host_ops, input_pipeline, loading
from byol_jax.learning import optimizers
from byol_jax.learning.learner import Learner, TrainState, make_learner
from byol_jax.models import networks
from byol_jax.runtime import (
  checkpoints,
  devices,
  files,
  metrics,
  processes,
  shutdown,
)
from byol_jax.training.plan import Plan, make_plan

_CONFIG_FILE = "config.json"
_REMEDY = "choose another --workdir"  # Where one cannot be written.

# Settings of a workdir that a later run may change: they alter no parameter.
FREE_KEYS = (
  "data.data_dir",
  "data.max_broken",
  "data.threads",
  "data.prefetch",
  "train.check_replicas_every",
  "train.compilation_cache",
  "train.hang_seconds",
  "train.remat",
  "evaluation.",
  "checkpoint.",
  "log.",
)


def build_network(config: Config, num_classes: int):
  """The network that a configuration describes; `UserError` if unknown."""
  model = config.model
  return networks.make_network(
    encoder=model.encoder.name,
    width=model.encoder.width,
    version=model.encoder.version,
    stem=model.encoder.stem,
    pooling=model.encoder.pooling,
    zero_init_last_scale=model.encoder.zero_init_last_scale,
    projector_layers=model.projector.layers,
    projector_hidden_size=model.projector.hidden_size,
    projector_output_size=model.projector.output_size,
    predictor_layers=model.predictor.layers,
    predictor_hidden_size=model.predictor.hidden_size,
    batch_norm_decay_rate=model.batch_norm.decay_rate,
    batch_norm_eps=model.batch_norm.eps,
    num_classes=num_classes,
    mean=config.data.mean,
    std=config.data.std,
    precision=config.train.precision,
    remat=config.train.remat,
  )


def build_learner(config: Config, plan: Plan, num_classes: int) -> Learner:
  """The one place where a configuration becomes a learner.

  Args:
    config: a whole configuration.
    plan: of the same, for the schedules.
    num_classes: outputs of the online classifier.

  Returns:
    Its `init` and `update`, which takes batches as the data layer makes them.

  Raises:
    UserError: if the encoder, optimizer, schedule or precision is unknown.
  """
  learning_rate = optimizers.learning_rate_schedule(
    plan.peak_learning_rate,
    total_steps=plan.total_steps,
    warmup_steps=plan.warmup_steps,
  )
  optimizer = optimizers.make_optimizer(
    config.optimizer.name,
    learning_rate,
    weight_decay=config.optimizer.weight_decay,
    momentum=config.optimizer.momentum,
    trust_coefficient=config.optimizer.trust_coefficient,
  )
  return make_learner(
    build_network(config, num_classes),
    optimizer,
    learning_rate,
    optimizers.tau_schedule(config.ema.schedule, plan.tau, plan.total_steps),
    microbatches=plan.microbatches,
    finish=functools.partial(finish_views, make_views(config)),
  )


class Run(NamedTuple):
  """What pretraining and everything after it needs of a run.

  Attributes:
    config: the resolved configuration: what it left to the data is filled in.
    workdir: where all of it is written.
    source: the data set.
    plan: how long it is.
    learner: its pure functions.
  """

  config: Config
  workdir: pathlib.Path
  source: loading.Source
  plan: Plan
  learner: Learner

  @property
  def num_classes(self) -> int:
    """Outputs of the online classifier."""
    return _classes(self.source)

  def initial_state(self) -> TrainState:
    """The state before the first update; a function of the seed."""
    side = self.config.data.image_size
    image = np.zeros((1, side, side, self.config.data.channels), np.float32)
    return self.learner.init(
      jax.random.PRNGKey(self.config.seed), {"view1": image, "view2": image}
    )

  def open_checkpoints(self) -> checkpoints.Checkpoints:
    """The run's checkpoints."""
    return checkpoints.Checkpoints(
      self.workdir / "checkpoints", self.config.checkpoint.keep
    )


def prepare(config: Config, workdir: pathlib.Path) -> Run:
  """Opens the data and looks at the workdir, so that mistakes show early.

  Args:
    config: a validated configuration.
    workdir: may be missing, or hold an earlier part of the same run.

  Returns:
    The run.

  Raises:
    UserError: if anything named in the configuration is unknown or cannot be
      had, or the workdir holds checkpoints of other settings.
  """
  devices.check_batch_size(config.train.batch_size, config.train.microbatches)
  source = _load_in_turn(config)
  config = _resolved(config, source, workdir)
  num_examples = loading.num_examples(source, source.dataset.pretrain)
  plan = make_plan(config, num_examples)
  run = Run(
    config=config,
    workdir=workdir,
    source=source,
    plan=plan,
    learner=build_learner(config, plan, _classes(source)),
  )
  processes.of_first(lambda: _check_settings(run))
  return run


def _load_in_turn(config: Config) -> loading.Source:
  """The data, which the first process prepares where that is to be done."""
  found: list[loading.Source] = []

  def open_data():
    found.append(load(config, config.data.dataset, config.data.root))

  processes.of_first(open_data)
  if not found:
    open_data()
  return found[0]


def load(config: Config, dataset: str, root: str) -> loading.Source:
  """Opens a data set, of folders the one at `root`; see `loading.load`."""
  data = config.data
  if dataset != "folder":
    return loading.load(dataset, data.data_dir)
  return loading.load_folder(root, data)


# Views for images of a short side up to the first number get the second as
# theirs: sizes that the field trains at. Larger images get the paper's 224.
_IMAGE_SIZES = ((40, 32), (80, 64), (128, 96), (192, 160))
_LARGEST_IMAGE_SIZE = 224

# Stride and max-pool of ImageNet's stem leave too little of smaller images; at
# 64 pixels (Tiny ImageNet) solo-learn leaves them out, at 96 (STL-10) not.
_CIFAR_STEM_UP_TO = 64


def _resolved(
  config: Config, source: loading.Source, workdir: pathlib.Path
) -> Config:
  """The configuration with all that it left to data and workdir filled in."""
  config = config.copy_and_resolve_references()
  data, encoder = config.data, config.model.encoder
  # A run that goes on with more or fewer processes sees the same batches.
  before = processes.of_first(lambda: _settings(workdir).get("data.parts"))
  data.parts = data.parts or before or jax.process_count()
  if not (data.image_size and data.mean and data.std):
    own = source.dataset.statistics or input_pipeline.measure(source)
    data.image_size = data.image_size or next(
      (size for limit, size in _IMAGE_SIZES if own.side <= limit),
      _LARGEST_IMAGE_SIZE,
    )
    data.mean = data.mean or _of_channels(own.mean, data.channels)
    data.std = data.std or _of_channels(own.std, data.channels)
  if encoder.stem == "auto":
    small = data.image_size <= _CIFAR_STEM_UP_TO
    encoder.stem = "cifar" if small else "imagenet"
  return config


def _of_channels(
  values: tuple[float, float, float], channels: int
) -> tuple[float, ...]:
  """Three channels' values, or for grey images their mean."""
  return values if channels == 3 else (round(sum(values) / 3, 4),)


def _classes(source: loading.Source) -> int:
  """At least one: where nothing is labelled, the classifier is there but idle."""
  return max(source.num_classes, 1)


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """A nested configuration as dotted keys."""
  keys: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, dict):
      keys |= flat(value, f"{prefix}{key}.")
    else:
      keys[prefix + key] = value
  return keys


def _settings(workdir: pathlib.Path) -> dict[str, Any]:
  """Those of the run that the workdir belongs to, {} if it is of none."""
  path = workdir / _CONFIG_FILE
  if not (_saved_steps(workdir) and path.exists()):
    return {}
  return flat(json.loads(path.read_text()))


def _saved_steps(workdir: pathlib.Path) -> int:
  """How many checkpoints a workdir holds."""
  return sum(p.name.isdigit() for p in workdir.glob("checkpoints/*"))


def _check_settings(run: Run) -> None:
  """Raises `UserError` if the workdir's checkpoints are of other settings."""
  theirs = _settings(run.workdir)
  ours = flat(json.loads(run.config.to_json_best_effort()))
  for key in sorted(theirs.keys() & ours.keys()):
    if theirs[key] != ours[key] and not key.startswith(FREE_KEYS):
      raise errors.UserError(
        f"{run.workdir} holds a run with {key}={theirs[key]}, not {ours[key]};"
        " go on with its settings or choose another --workdir."
      )


def claim(run: Run) -> None:
  """Makes the workdir the run's; `UserError` if it cannot be written."""
  settings = json.loads(run.config.to_json_best_effort())
  with files.replacing(run.workdir / _CONFIG_FILE, _REMEDY) as file:
    file.write_text(json.dumps(settings, indent=2) + "\n")


def list_broken(run: Run) -> pathlib.Path:
  """Writes the files that were left out, and why, one a line; returns where."""
  path = run.workdir / "broken_files.txt"
  with files.replacing(path, _REMEDY) as file:
    file.write_text("".join(f"{n}\t{why}\n" for n, why in run.source.broken))
  return path


def _check_space(run: Run, state: TrainState) -> None:
  """Raises `UserError` if the checkpoints to be kept cannot fit the disk."""
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  # One more than is kept, while replacing; less those that are there already.
  needed = size * max(
    run.config.checkpoint.keep + 1 - _saved_steps(run.workdir), 1
  )
  free = shutil.disk_usage(run.workdir).free
  if free < needed:
    raise errors.UserError(
      f"{run.workdir} has {free / 1e9:.1f} GB free and"
      f" checkpoint.keep={run.config.checkpoint.keep} needs"
      f" {needed / 1e9:.1f} GB more; free space or keep fewer."
    )


def make_views(config: Config) -> input_pipeline.Views:
  """What a configuration makes of an image."""
  settings = config.augment
  return input_pipeline.Views(
    view1=host_ops.View(**settings.view1),
    view2=host_ops.View(**settings.view2),
    image_size=config.data.image_size,
    channels=config.data.channels,
    placement=settings.placement,
  )


def make_reading(config: Config) -> input_pipeline.Reading:
  """How a configuration reads its data."""
  data = config.data
  return input_pipeline.Reading(
    shuffle_buffer=data.shuffle_buffer,
    shuffle_bytes=data.shuffle_bytes,
    cache_bytes=data.cache_bytes,
    parts=data.parts,
    threads=data.threads,
    prefetch=data.prefetch,
  )


def _batches(run: Run, start_step: int) -> Iterator[dict[str, Any]]:
  """The batches from a step on, on the devices ahead of their use."""
  return devices.prefetch(
    input_pipeline.train_batches(
      run.source,
      make_views(run.config),
      make_reading(run.config),
      batch_size=run.config.train.batch_size,
      seed=run.config.seed,
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
  )


def eval_batches(
  config: Config,
  source: loading.Source,
  split: str,
  batch_size: int | None = None,
  places: range | None = None,
  *,
  spread: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
  """Examples of a split once, as the evaluations of a configuration see them.

  Several processes get all of them each or, if `spread`, batches in turn, the
  last of which are filled up.
  """
  return input_pipeline.eval_batches(
    source,
    split,
    batch_size=batch_size or config.evaluation.batch_size,
    image_size=config.data.image_size,
    crop=config.data.eval_crop,
    channels=config.data.channels,
    places=places,
    process_index=jax.process_index() if spread else 0,
    process_count=jax.process_count() if spread else 1,
  )


def finish_views(
  views: input_pipeline.Views, batch: Mapping[str, Any]
) -> dict[str, Any]:
  """A batch whose views are finished, on the device if that is their place."""
  if views.placement == "host":
    return dict(batch)
  possible = host_ops.possible(views.view1, views.view2)

  def finish(crops, recipes):
    done = device_ops.finish(crops, recipes, possible)
    return done[..., : views.channels]

  return {
    "view1": finish(batch["view1"], batch["recipe1"]),
    "view2": finish(batch["view2"], batch["recipe2"]),
    "label": batch["label"],
  }


def restore(run: Run, step: int | None = None) -> TrainState:
  """A checkpoint's state, the newest's by default; `UserError` if it is not."""

  def read():
    with run.open_checkpoints() as saved:
      if saved.latest_step() is None:
        raise errors.UserError(
          f"{run.workdir} holds no checkpoint yet; pretrain first."
        )
      return saved.restore(jax.eval_shape(run.initial_state), step)

  return processes.of_first(read)


def _newest_step(run: Run) -> int:
  """That of the newest checkpoint, -1 if there is none."""
  with run.open_checkpoints() as saved:
    step = saved.latest_step()
  return -1 if step is None else step


_LOOK_EVERY = 5.0  # Seconds.


def watch(run: Run) -> Iterator[TrainState]:
  """The newest checkpoint's state whenever there is a new one, to the last.

  For a process beside the one that trains; those that come while the caller is
  busy are left out.
  """
  step = -1
  while step < run.plan.total_steps:
    if processes.of_first(lambda: _newest_step(run)) <= step:
      time.sleep(_LOOK_EVERY)
    else:
      state = restore(run)  # Not that step's, which may be deleted by now.
      step = int(state.step)
      yield state


def _begin(run: Run) -> TrainState:
  """The state that training starts from or goes on with, and room for more."""
  claim(run)
  with run.open_checkpoints() as saved:
    if saved.latest_step() is None:
      state = run.initial_state()
    else:
      state = saved.restore(jax.eval_shape(run.initial_state))
  if int(state.step) < run.plan.total_steps:
    _check_space(run, state)
  return state


def pretrain(run: Run) -> tuple[TrainState, bool]:
  """Trains to the end of the plan, from the last checkpoint if there is one.

  Args:
    run: from `prepare`.

  Returns:
    The final state, which is also the last checkpoint, and whether it was
    already reached.

  Raises:
    signals.Interrupted: by SIGTERM or Ctrl-C, after saving.
    UserError: if the loss is not finite, devices have come to differ, or
      nothing can be written.
  """
  state = processes.of_first(lambda: _begin(run))
  start = int(state.step)
  if start == run.plan.total_steps:
    return state, True
  state = devices.replicate(state)
  batches = _batches(run, start)
  with contextlib.ExitStack() as stack:
    saved: checkpoints.Checkpoints | None = None
    writers: list[metrics.Writer] = []
    if processes.is_first():
      saved = stack.enter_context(run.open_checkpoints())
      writers = [
        metrics.JsonlWriter(run.workdir / "metrics.jsonl", start),
        metrics.TensorBoardWriter(run.workdir / "tensorboard"),
        metrics.ProgressBar(run.plan.total_steps, start),
        metrics.DataWaitHint(_DATA_ADVICE[run.config.augment.placement]),
      ]
    meter = metrics.Meter(
      writers,
      batch_size=run.config.train.batch_size,
      every_steps=run.config.log.every_steps,
      last_step=run.plan.total_steps,
    )
    stack.callback(meter.close)
    try:
      return _loop(run, state, batches, saved, meter), False
    except metrics.NotFiniteError as error:
      raise errors.UserError(
        f"{error}; the last good checkpoint in {run.workdir / 'checkpoints'} is"
        " kept: lower optimizer.base_learning_rate or raise"
        " optimizer.warmup_epochs, in another --workdir."
      ) from error


# What to do where the step waits for its batch, by `augment.placement`.
_DATA_ADVICE = {
  "host": "augment.placement=device lets an accelerator change colours and blur,"
  " more cores help, and data.cache_bytes if the disk is slow",
  "device": "decoding and cropping are what is left: more cores help, smaller"
  " files, data.cache_bytes if the disk is slow",
}


def _is_finite(state: TrainState) -> bool:
  params = jax.device_get((state.online_params, state.online_state))
  return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def _check_replicas(state: TrainState, step: int) -> None:
  """Raises `UserError` unless all devices hold the same state."""
  if differing := devices.differing_devices(state):
    raise errors.UserError(
      f"After step {step} devices {differing} hold other parameters than device"
      " 0: one of them computes wrongly or lost its state. Leave that machine"
      " out and run the same command again; the last checkpoint is kept."
    )


def _loop(
  run: Run,
  state: TrainState,
  batches: Iterator[dict[str, Any]],
  saved: checkpoints.Checkpoints | None,
  meter: metrics.Meter,
) -> TrainState:
  """Trains; `saved` is what the one process has that saves."""
  config = run.config
  first_step, last_step = int(state.step) + 1, run.plan.total_steps
  saving = config.checkpoint
  update = devices.pmap_update(run.learner.update)
  saved_at = time.monotonic()
  with (
    shutdown.Remembered() as remembered,
    processes.Watchdog(config.train.hang_seconds) as watchdog,
  ):
    for step in range(first_step, last_step + 1):
      asked_at = time.monotonic()
      batch = next(batches)
      meter.waited(time.monotonic() - asked_at)
      state, row = update(state, batch)
      meter.add(step, row)
      watchdog.alive()

      every = config.train.check_replicas_every
      is_last = step == last_step
      # The first time is early, as it compiles.
      if step == first_step or is_last or (every and step % every == 0):
        _check_replicas(state, step)
      stop = remembered.received_by(step)
      overdue = time.monotonic() - saved_at > saving.every_seconds > 0
      due = saving.every_steps and step % saving.every_steps == 0
      if is_last or overdue or due or stop:
        meter.drain()
        if not _is_finite(state):  # The losses are of the states before.
          raise metrics.NotFiniteError(f"A parameter is NaN after step {step}")
        if saved:
          saved.save(step, state)
        saved_at = time.monotonic()
      if stop:
        if saved:
          saved.close()
        processes.meet()  # None leaves while the first one is still saving.
        raise shutdown.Interrupted(stop, step)
  return state
