"""A run from its configuration to its end, as the command and Python programs do it.

`byol_jax.open_run`, `byol_jax.pretrain` and `byol_jax.evaluate` are these functions
and `evaluation.runner.evaluate`.
"""

import functools
import os
import pathlib
import tempfile
from collections.abc import Callable

import jax

from byol_jax import config as config_lib
from byol_jax.config import convert, presets, schema
from byol_jax.evaluation import monitor, results
from byol_jax.interop import warm_start
from byol_jax.learning import verdict
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import console, cpu, files, processes
from byol_jax.training import health, loop, runs, sessions
from byol_jax.training.runs import Run

# TensorFlow only feeds images: its start-up messages are noise, its optional
# kernels round differently from machine to machine, and without the older Keras,
# which is not installed, it imports no Keras, which saves a third of its start.
_TENSORFLOW = {
  "TF_CPP_MIN_LOG_LEVEL": "3",
  "TF_ENABLE_ONEDNN_OPTS": "0",
  "TF_USE_LEGACY_KERAS": "1",
}


def open_run(
  config: schema.Config,
  workdir: str | os.PathLike,
  tell: Callable[[str], None] = console.say,
) -> Run:
  """Opens the data and the workdir of a run, and sets up JAX and TensorFlow for it.

  Call it before JAX and TensorFlow are first used, as some settings have no effect
  later: on CPUs, training would then be slower.

  Args:
    config: such as `config.default_config()`, edited.
    workdir: a folder or a bucket, `gs://...` or `s3://...`. It may be missing, or hold
      an earlier part of the same run.
    tell: is called with each line that the user should see; by default, `log.level`
      chooses which are printed.

  Returns:
    The run, with the settings that depend on the data.

  Raises:
    UserError: if a setting is wrong, the data cannot be read, or the workdir holds
      another run; see `runs.prepare`.
  """
  config_lib.validate(config)
  config = presets.with_augment_preset(config)
  console.configure(config.log.level)
  _set_up(config, tell)
  workdir = files.to_path(workdir)
  settings = processes.broadcast_from_primary(
    lambda: warm_start.open_settings(config, workdir)
  )
  return runs.prepare(convert.updated(config, settings), workdir)


def _set_up(config: schema.Config, tell: Callable[[str], None]) -> None:
  """Applies the settings that libraries read only before their first use."""
  for name, value in _TENSORFLOW.items():
    os.environ.setdefault(name, value)
  cpu.choose_fast_convolutions()
  if config.train.compilation_cache:
    _keep_compiled_programs(config.train.compilation_cache, tell)


def _keep_compiled_programs(folder: str, tell: Callable[[str], None]) -> None:
  """Makes JAX keep compiled programs in a folder, if it can be written.

  JAX itself would warn about each program.
  """
  if "://" not in folder:  # JAX writes to buckets, too.
    try:
      path = pathlib.Path(folder).expanduser()  # RuntimeError: no home folder.
      path.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryFile(dir=path):
        pass
    except (OSError, RuntimeError) as error:
      tell(
        f"Note: train.compilation_cache={folder} cannot be written ({error}), so"
        " every start compiles again."
      )
      return
    folder = str(path)
  jax.config.update("jax_compilation_cache_dir", folder)


def pretrain(
  run: Run,
  tell: Callable[[str], None] = console.say,
  on_start: Callable[[Run, int], None] = lambda run, step: None,
) -> tuple[TrainState, bool]:
  """Trains a run to its end, and says whether training was healthy.

  A new run starts from random weights, or those that `model.encoder.init_from`
  names; any other from its latest checkpoint.

  Args:
    run: from `open_run`.
    tell: is called with each line that the user should see; by default, `log.level`
      chooses which are printed.
    on_start: is called with the run and the step to train on from, unless that is
      the last one.

  Returns:
    The final state, and whether an earlier call had already reached it.

  Raises:
    shutdown.Interrupted: on SIGTERM or Ctrl-C in the main thread, after saving.
    UserError: see `loop.pretrain`.
  """

  def record(run: Run, step: int) -> None:
    on_start(run, step)
    if processes.is_primary():
      sessions.record(run.workdir, step)

  start = loop.untrained
  if run.config.model.encoder.init_from:
    start = functools.partial(warm_start.start, tell=tell)
  watcher = monitor.Monitor(run) if run.config.evaluation.every_epochs else None
  state, was_finished = loop.pretrain(run, start, record, tell, watcher)
  show_health(run, tell)
  return state, was_finished


def show_health(run: Run, tell: Callable[[str], None]) -> None:
  """Tells whether training was healthy, and adds it to `results.json`."""
  if processes.is_primary() and (found := health.of_run(run)):
    note = "" if found.verdict in verdict.FINE else "Note: "
    tell(f"{note}Health: {verdict.describe(found)}")
    results.add_health(run.workdir, verdict.to_json(found))
