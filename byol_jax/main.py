"""The command line: flags, process set-up, dispatch on --mode.

python -m byol_jax.main --config=experiments/NAME.py[:PRESET] --workdir=DIR \
  [--mode=MODE] [--config.KEY=VALUE ...]
"""

import os

from byol_jax.runtime import cpu

if __name__ == "__main__":
  cpu.restart_with_huge_pages()

# TensorFlow only feeds images; what it has to say of its own start is noise, its
# optional kernels round differently from machine to machine, and without the
# older Keras, which is not there, it imports none: a third of its start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import pathlib
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from byol_jax import config as config_lib
from byol_jax import errors
from byol_jax.evaluation import embed, protocols, results, runner
from byol_jax.interop import encoder_file
from byol_jax.learning.learner import TrainState
from byol_jax.models import networks
from byol_jax.reporting import report, summary
from byol_jax.runtime import processes, shutdown
from byol_jax.training import plan, runs

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment file, such as experiments/quickstart.py."
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Where all is written; if not given, runs/NAME, or runs/NAME-encoder with"
  " --encoder.",
)
_MODE = flags.DEFINE_string(
  "mode",
  "pretrain",
  "What to do: pretrain, evaluate, embed, export, report or views.",
)
_STEP = flags.DEFINE_integer(
  "step",
  None,
  "Of evaluate, embed and export: the checkpoint; by default the newest.",
)
_ENCODER = flags.DEFINE_string(
  "encoder",
  "",
  "Of evaluate and embed: a file that export wrote, instead of a checkpoint.",
)
_WATCH = flags.DEFINE_bool(
  "watch", False, "Of evaluate: each new checkpoint, until the run has ended."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  "",
  "Of several processes: HOST:PORT of the first. With num_processes and"
  " process_id needed only where neither srun nor mpirun starts them.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Of several processes: how many."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Of several processes: which this one is, from 0."
)
_SPLIT = flags.DEFINE_string(
  "split",
  "",
  "Of embed: a tfds split expression; by default the train split.",
)


def _say(message: str) -> None:
  """Prints for people; of several processes, the first speaks."""
  if processes.is_first():
    print(message, flush=True)


def _tell_network(run: runs.Run) -> None:
  """Prints one line a module."""
  config = run.config
  side, channels = config.data.image_size, config.data.channels
  shape = (config.train.batch_size, side, side, channels)
  network = runs.build_network(config, run.num_classes)
  for row in networks.describe(network, shape):
    _say("  {:12}{:>18} -> {:12}{:>14,} parameters".format(*row))


def _tell_data(run: runs.Run) -> None:
  """Prints what the data decided, and what of it cannot be used."""
  data = run.config.data
  _say(
    f"{run.plan.num_examples} images to pretrain on,"
    f" {run.source.num_classes or 'no'} classes; views of"
    f" {data.image_size}x{data.image_size}x{data.channels}; stem"
    f" {run.config.model.encoder.stem}; mean {_numbers(data.mean)}, std"
    f" {_numbers(data.std)}."
  )
  if run.source.broken and processes.is_first():
    path = runs.list_broken(run)
    _say(f"{len(run.source.broken)} files cannot be used; see {path}.")


def _numbers(values: Sequence[float]) -> str:
  return " ".join(f"{value:.3f}" for value in values)


def _pretrain(run: runs.Run) -> None:
  """Trains, evaluates and draws, as far as it has not been done before."""
  results.check_same_encoder(run)  # Mistakes must not wait for the end.
  protocols.selected(run)
  _tell_data(run)
  _tell_network(run)
  for line in plan.describe(run.plan, run.config.ema.schedule):
    _say(line)
  where = (
    f" in {jax.process_count()} processes" if processes.are_several() else ""
  )
  _say(f"{jax.device_count()} {jax.devices()[0].platform} devices{where}.")
  state, was_finished = runs.pretrain(run)
  shutdown.stop_on_sigterm()
  if was_finished and processes.of_first(lambda: results.is_complete(run)):
    _say("This run was already finished.")
    for name, result in results.read(run.workdir).items():
      _tell_result(name, result)
  else:
    runner.evaluate(run, state, _tell_result)
  if processes.is_first():
    report.write(run)


def _restored(run: runs.Run) -> TrainState:
  """What is judged: the state of a checkpoint, or an encoder from a file."""
  if not _ENCODER.value:
    return runs.restore(run, _STEP.value)
  results.check_same_encoder(run, _ENCODER.value)

  def read() -> TrainState:
    state = encoder_file.restore(run, _ENCODER.value)
    runs.claim(run)
    return state

  state = processes.of_first(read)
  _say(
    f"{_ENCODER.value}: {run.config.model.encoder.name}, step {state.step}, for"
    f" images of {run.config.data.image_size} pixels."
  )
  return state


def _evaluate(run: runs.Run) -> None:
  """Evaluates a checkpoint, or each that another process writes."""
  if not _WATCH.value:
    runner.evaluate(run, _restored(run), _tell_result, _ENCODER.value)
    return
  if _STEP.value is not None:
    raise errors.UserError(
      f"--step={_STEP.value} is one checkpoint and --watch all; give one of them."
    )
  protocols.selected(run)  # A mistake there must not wait.
  _say(f"Waiting for checkpoints in {run.workdir}; Ctrl-C ends it.")
  for state in runs.watch(run):
    _say(f"Step {int(state.step)}:")
    runner.evaluate(run, state, _tell_result)
    run.config.evaluation.baselines = False  # They do not change.


def _embed(run: runs.Run) -> None:
  """Writes what the encoder makes of each image of a split."""
  _say(f"Written: {embed.write(run, _restored(run), _SPLIT.value)}")


def _export(run: runs.Run) -> None:
  """Writes what is kept after training."""
  _say(f"Written: {encoder_file.write(run, _restored(run))}")


def _report(run: runs.Run) -> None:
  """Draws a run, finished or not, or a sweep; of seeds, makes a table."""
  if not processes.is_first():
    return
  if summary.is_sweep(run.workdir):
    path = summary.write_sweep(run.workdir)
    _say(path.read_text())
    _say(f"Written: {path}, and a figure beside it")
  elif summary.workdirs(run.workdir):
    path = summary.write(run.workdir)
    _say(path.read_text())
    _say(f"Written: {path}")
  else:
    report.write(run)


def _views(run: runs.Run) -> None:
  """Draws what the first step is given."""
  _tell_data(run)
  if processes.is_first():
    _say(f"Drawn: {report.write_views(run)}")


MODES: Mapping[str, Callable[[runs.Run], None]] = {
  "pretrain": _pretrain,
  "evaluate": _evaluate,
  "embed": _embed,
  "export": _export,
  "report": _report,
  "views": _views,
}


def _tell_result(name: str, result: Mapping[str, Any]) -> None:
  """Prints a figure, how sure it is, and the paper's."""
  sure = (
    "  {} to {}".format(*result["interval"]) if "interval" in result else ""
  )
  theirs = f"  (paper: {result['paper']})" if "paper" in result else ""
  _say(f"  {name:44}{result['value']:.4f}{sure}{theirs}")


def _experiment() -> tuple[pathlib.Path, str]:
  """The file and the preset of --config=FILE:PRESET."""
  given = config_flags.get_config_filename(flags.FLAGS["config"])
  path, _, preset = given.partition(":")
  return pathlib.Path(path), preset


def _default_workdir() -> pathlib.Path:
  """runs/imagenet-300 for --config=experiments/imagenet.py:300.

  An encoder from a file is judged beside it, in runs/imagenet-300-encoder.
  """
  path, preset = _experiment()
  name = path.stem + (f"-{preset}" if preset else "")
  return pathlib.Path("runs") / (name + ("-encoder" if _ENCODER.value else ""))


def _set_up(config: config_lib.Config) -> None:
  """What must be decided before JAX is first used."""
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  cpu.choose_fast_convolutions()
  if config.train.compilation_cache:
    jax.config.update(
      "jax_compilation_cache_dir",
      os.path.expanduser(config.train.compilation_cache),
    )
  processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)


def main(argv: Sequence[str]) -> None:
  """Runs one mode; exits with 0 only if its work was done.

  1 is a mistake, `processes.GO_ON` what the same command will mend.
  """
  shutdown.stop_on_sigterm()
  try:
    _run(argv)
  except errors.UserError as error:
    _fail(f"Error: {error}", 1)
  except KeyboardInterrupt:
    processes.leave(130)  # Where nothing is being trained, nothing is lost.
  except shutdown.Interrupted as interrupted:
    _say(str(interrupted))
    is_queue = interrupted.signum == signal.SIGTERM
    processes.leave(processes.GO_ON if is_queue else 130)
  except Exception as error:
    if not processes.are_several():
      raise
    is_jax = isinstance(error, jax.errors.JaxRuntimeError)
    if is_jax and "RESOURCE_EXHAUSTED" not in str(error):
      _fail(
        f"Another process was lost ({str(error).splitlines()[0]}); run the same"
        " command again to go on from the last checkpoint.",
        processes.GO_ON,
        alone=True,
      )
    traceback.print_exc()
    processes.leave(1)


def _run(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise errors.UserError(
      f"{argv[1]!r} is not a flag; write --config=FILE --config.KEY=VALUE."
    )
  if _CONFIG.value is None:
    raise errors.UserError(
      "--config is missing; try --config=experiments/quickstart.py."
    )
  if not _experiment()[0].is_file():
    raise errors.UserError(
      f"--config={_experiment()[0]} is not a file; give the path of an"
      " experiment, such as experiments/quickstart.py."
    )
  if _MODE.value not in MODES:
    raise errors.unknown_name("--mode", _MODE.value, MODES)
  config = _CONFIG.value
  if _ENCODER.value:
    if (
      _MODE.value not in ("evaluate", "embed")
      or _STEP.value is not None
      or _WATCH.value
    ):
      raise errors.UserError(
        f"--encoder={_ENCODER.value} goes with --mode=evaluate or --mode=embed,"
        " and without --step and --watch, which are of checkpoints."
      )
    config = encoder_file.fitted(config, _ENCODER.value)
  config_lib.validate(config)
  _set_up(config)
  if _MODE.value != "pretrain" or not processes.are_several():
    shutdown.stop_on_sigterm()  # JAX's own, since they met, waits to be asked.
  workdir = pathlib.Path(_WORKDIR.value or _default_workdir())
  _say(f"Workdir: {workdir}")
  MODES[_MODE.value](runs.prepare(config, workdir))
  _say(f"Done: {workdir}")


def _fail(message: str, code: int, *, alone: bool = False) -> NoReturn:
  """Ends with a message; of several processes, with which one says it."""
  if processes.are_several():
    message = f"Process {jax.process_index()}: {message}"
  print(message, file=sys.stderr, flush=True)
  processes.leave(code, alone=alone)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """absl's parser, with a configuration's mistakes told in one line."""
  try:
    return flags.FLAGS(argv)
  except Exception as error:  # An experiment file can raise anything.
    text = str(error.args[0] if error.args else repr(error))
  text = text.replace("\\n", "\n").replace("\\'", "'")  # KeyErrors come quoted.
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if "Traceback" in text:  # ml_collections quotes one; its end says it all.
    lines = lines[-1:]
  sys.exit(f"Error: {' '.join(lines)}")


def run() -> None:
  """The console command."""
  app.run(main, flags_parser=_parse_flags)


if __name__ == "__main__":
  run()
