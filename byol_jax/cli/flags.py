"""The flags of the command line; no other module reads them."""

import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from byol_jax import errors
from byol_jax.cli import overrides
from byol_jax.config import schema
from byol_jax.runtime import files

_OVERRIDE = re.compile(r"--?config\.(?P<key>[^=]+)(=(?P<value>.*))?$", re.S)

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment file, such as experiments/quickstart.py."
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder, or gs://... or s3://..., that everything is written to; by default runs/NAME, or"
  " runs/NAME-encoder to evaluate or embed with --encoder.",
)
_MODE = flags.DEFINE_string(
  "mode",
  "pretrain",
  "Mode: pretrain, evaluate, embed, export, import, arrays, report or views.",
)
_STEP = flags.DEFINE_integer(
  "step",
  None,
  "For evaluate, embed and export: the checkpoint's step; by default the latest.",
)
_ENCODER = flags.DEFINE_string(
  "encoder",
  "",
  "A file that export wrote: for evaluate and embed, instead of a checkpoint; for"
  " pretrain, what --config.model.encoder.init_from names.",
)
_IMPORT_FROM = flags.DEFINE_string(
  "import_from",
  "",
  "For import: a checkpoint of deepmind-research/byol, such as"
  " pretrain_res50x1.pkl.",
)
_WATCH = flags.DEFINE_bool(
  "watch",
  False,
  "For evaluate: evaluate each new checkpoint until the run has ended.",
)
_SPLIT = flags.DEFINE_string(
  "split",
  "",
  "For embed: a tfds split expression; by default all splits.",
)
_FORMAT = flags.DEFINE_string(
  "format",
  "npz",
  "For embed: npz or parquet, which takes millions of images.",
)
_COMPARE = flags.DEFINE_list(
  "compare",
  [],
  "For report: workdirs of runs to stand beside this one, separated by commas.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  "",
  "HOST:PORT of the primary process. Needed, with num_processes and process_id,"
  " only for several processes that neither srun nor mpirun starts.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes of the run."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Index of this process, from 0."
)


class Options(NamedTuple):
  """The flags other than --config, with defaults filled in.

  Attributes:
    mode: a name in `modes.MODES`, not yet checked.
    workdir: the folder that everything is written to.
    step: of a checkpoint; None for the latest.
    encoder: an encoder file to start from or to evaluate; empty for none.
    import_from: a checkpoint of the reference; empty for none.
    watch: whether to evaluate each new checkpoint.
    split: tfds split expression; empty for all splits.
    compare: workdirs of further runs on the page of a report.
    coordinator: HOST:PORT of the primary process; empty if not given.
    num_processes: None if not given.
    process_id: None if not given.
    file_format: a name in `embedding_files.FORMATS`, not yet checked.
  """

  mode: str
  workdir: pathlib.Path
  step: int | None
  encoder: str
  import_from: str
  watch: bool
  split: str
  compare: Sequence[str]
  coordinator: str
  num_processes: int | None
  process_id: int | None
  file_format: str = "npz"


def read(argv: Sequence[str]) -> tuple[schema.Config, Options]:
  """Returns the configuration and the other flags.

  Args:
    argv: the program's name and the arguments that are not flags.

  Raises:
    UserError: if there are such arguments, the experiment file is missing, or
      flags contradict each other.
  """
  if len(argv) > 1:
    raise errors.UserError(
      f"{argv[1]!r} is not a flag; write --config=FILE --config.KEY=VALUE."
    )
  if not flags.FLAGS["config"].present:
    raise errors.UserError(
      "--config is missing; try --config=experiments/quickstart.py."
    )
  if not _experiment()[0].is_file():
    raise errors.UserError(
      f"--config={_experiment()[0]} is not a file; give the path of an"
      " experiment, such as experiments/quickstart.py."
    )
  options = Options(
    mode=_MODE.value,
    workdir=_checked_workdir(
      files.to_path(_WORKDIR.value or _default_workdir())
    ),
    step=_STEP.value,
    encoder=_ENCODER.value,
    import_from=_IMPORT_FROM.value,
    watch=_WATCH.value,
    split=_SPLIT.value,
    compare=_COMPARE.value,
    coordinator=_COORDINATOR.value,
    num_processes=_NUM_PROCESSES.value,
    process_id=_PROCESS_ID.value,
    file_format=_FORMAT.value,
  )
  _check(options)
  return _CONFIG.value, options


def _checked_workdir(path: pathlib.Path) -> pathlib.Path:
  """Returns a path, or raises `UserError` if no folder can have it.

  The libraries that write to the workdir take UTF-8 only.
  """
  try:
    str(path).encode()
    path.exists()
  except errors.UserError:
    raise
  except (OSError, UnicodeEncodeError) as error:
    given = f"--workdir={ascii(str(path))[1:-1][:100]}"
    reason = getattr(error, "strerror", None) or error
    if isinstance(error, UnicodeEncodeError):
      reason = "it is not UTF-8"
    raise errors.UserError(
      f"{given} cannot be a folder: {reason}; choose another."
    ) from error
  return path


def _check(options: Options) -> None:
  """Raises `UserError` for flags that contradict each other."""
  if options.encoder and (
    options.mode not in ("pretrain", "evaluate", "embed")
    or options.step is not None
    or options.watch
  ):
    raise errors.UserError(
      f"--encoder={options.encoder} goes with --mode=pretrain, evaluate or embed,"
      " and without --step and --watch, which are for checkpoints."
    )
  if bool(options.import_from) != (options.mode == "import"):
    raise errors.UserError(
      f"--mode={options.mode} and --import_from={options.import_from} do not fit:"
      " --mode=import, and no other, needs --import_from=FILE."
    )
  if options.compare and options.mode != "report":
    raise errors.UserError(
      f"--compare={','.join(options.compare)} goes with --mode=report."
    )
  if options.watch and options.step is not None:
    raise errors.UserError(
      f"--step={options.step} is one checkpoint and --watch all; give one of"
      " them."
    )


def given_keys() -> list[str]:
  """Returns the dotted keys that the command line sets by --config.KEY=VALUE."""
  return list(config_flags.get_override_values(flags.FLAGS["config"]))


def verbosity_is_given() -> bool:
  """Returns whether the user chose how much absl logs."""
  return bool(flags.FLAGS["verbosity"].present)


def _experiment() -> tuple[pathlib.Path, str]:
  """Returns the file and the preset of --config=FILE:PRESET."""
  given = config_flags.get_config_filename(flags.FLAGS["config"])
  path, _, preset = given.partition(":")
  return pathlib.Path(path), preset


def _default_workdir() -> pathlib.Path:
  """Returns runs/imagenet-300 for --config=experiments/imagenet.py:300.

  What is evaluated with --encoder is in runs/imagenet-300-encoder.
  """
  path, preset = _experiment()
  name = path.stem + (f"-{preset}" if preset else "")
  is_other = _ENCODER.value and _MODE.value != "pretrain"
  return pathlib.Path("runs") / (name + ("-encoder" if is_other else ""))


def parse(argv: Sequence[str]) -> list[str]:
  """Parses flags as absl does, but reports each mistake in one line."""
  try:
    return flags.FLAGS(argv)
  except Exception as error:  # An experiment file can raise anything.
    text = str(error.args[0] if error.args else repr(error))
  for arg in argv:
    # absl's words for these name neither the place of a key nor its type.
    found = _OVERRIDE.match(arg)
    if found and (mistake := overrides.mistake(**found.groupdict())):
      sys.exit(f"Error: {mistake}")
    name = arg.lstrip("-").partition("=")[0]
    if f"'{name}'" in text and (meant := overrides.like(name)):
      sys.exit(f"Error: --{name} is unknown; did you mean --config.{meant[0]}?")
  text = text.replace("\\n", "\n").replace("\\'", "'")  # KeyErrors are quoted.
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if "Traceback" in text:  # ml_collections quotes a traceback, cause last.
    lines = lines[-1:]
  sys.exit(f"Error: {' '.join(lines)}")
