"""Runs one mode, and turns its end into a message and an exit code."""

import logging as python_logging
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import jax
from absl import app, logging

from byol_jax import config as config_lib
from byol_jax import errors, program
from byol_jax.cli import flags, modes
from byol_jax.config import presets, schema
from byol_jax.evaluation import embedding_files
from byol_jax.interop import encoder_file
from byol_jax.runtime import console, cpu, processes, shutdown

_EXIT_MISTAKE = 1
_EXIT_CTRL_C = 128 + signal.SIGINT  # As shells report it.


def run() -> None:
  """Parses the command line and runs it."""
  app.run(main, flags_parser=flags.parse)


def main(argv: Sequence[str]) -> None:
  """Runs one mode; returns only if its work was done.

  Otherwise the process ends with 1 for a mistake, with `processes.EXIT_RESUMABLE`
  if the same command resumes the run, and with 130 after Ctrl-C.
  """
  shutdown.stop_on_signals()
  try:
    _run_mode(argv)
    shutdown.ignore_signals()
  except errors.UserError as error:
    _fail(f"Error: {error}", _EXIT_MISTAKE)
  except shutdown.Interrupted as interrupted:
    shutdown.ignore_signals()
    if processes.is_primary():
      print(interrupted, flush=True)  # Why it ended shows at every level.
    by_queue = interrupted.signum == signal.SIGTERM
    processes.exit_process(
      processes.EXIT_RESUMABLE if by_queue else _EXIT_CTRL_C
    )
  except Exception as error:
    if not processes.is_multiprocess():
      raise
    if _is_lost_process(error):
      _fail(
        f"Another process was lost ({str(error).splitlines()[0]}); run the same"
        " command again to resume from the last checkpoint.",
        processes.EXIT_RESUMABLE,
        alone=True,
      )
    traceback.print_exc()
    processes.exit_process(_EXIT_MISTAKE)


def _run_mode(argv: Sequence[str]) -> None:
  config, options = flags.read(argv)
  known = [*modes.MODES, *modes.MODES_WITHOUT_DATA]
  if options.mode not in known:
    raise errors.unknown_name("--mode", options.mode, known)
  embedding_files.check(options.file_format)
  if options.encoder and options.mode == "pretrain":
    if config.model.encoder.init_from not in ("", options.encoder):
      raise errors.UserError(
        f"--encoder={options.encoder} and --config.model.encoder.init_from="
        f"{config.model.encoder.init_from} name two files to start from; give one"
        " of them."
      )
    config.model.encoder.init_from = options.encoder
  elif options.encoder:
    config = encoder_file.config_for(config, options.encoder)
    config.model.encoder.init_from = ""  # Says where a run starts.
    if other := config.evaluation.dataset:  # Then no other data are needed.
      config.data.dataset, config.data.root = other, config.evaluation.root
      config.data.split, config.data.fraction = "", 1.0
  config_lib.validate(config)
  config = presets.with_augment_preset(config, flags.given_keys())
  console.configure(config.log.level)
  _set_up_jax(config, options)
  console.say(f"Workdir: {options.workdir}")
  if options.mode in modes.MODES_WITHOUT_DATA:
    modes.MODES_WITHOUT_DATA[options.mode](config, options)
  else:
    run = program.open_run(config, options.workdir, console.say)
    modes.MODES[options.mode](run, options)
  console.say(f"Done: {options.workdir}")


def _set_up_jax(config: schema.Config, options: flags.Options) -> None:
  """Applies the settings that JAX reads only before its first use."""
  if not flags.verbosity_is_given():
    logging.set_verbosity(logging.WARNING)
    # Where it keeps its fonts, if it cannot in the home folder.
    python_logging.getLogger("matplotlib").setLevel(python_logging.ERROR)
  cpu.choose_fast_convolutions()
  processes.initialize(
    options.coordinator,
    options.num_processes,
    options.process_id,
    config.train.hang_seconds,
  )


def _is_lost_process(error: Exception) -> bool:
  """Returns whether a collective operation failed because a process was lost."""
  is_jax = isinstance(error, jax.errors.JaxRuntimeError)
  return is_jax and "RESOURCE_EXHAUSTED" not in str(error)


def _fail(message: str, code: int, *, alone: bool = False) -> NoReturn:
  """Prints a message, names the process if there are several, and exits."""
  shutdown.ignore_signals()
  if processes.is_multiprocess():
    message = f"Process {jax.process_index()}: {message}"
  print(message, file=sys.stderr, flush=True)
  processes.exit_process(code, alone=alone)
