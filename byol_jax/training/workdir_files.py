"""The files of a workdir that hold no settings, and the room for checkpoints."""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import jax

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import checkpoint_storage, files

METRICS_FILE = "metrics.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
_CLASSES_FILE = "classes.json"
# Our choice: time-based checkpoints are counted for a day of training, since only
# training shows how long the steps that are left will take.
_DAY_SECONDS = 86_400
_REMEDY = "choose another --workdir"  # For a workdir that cannot be written.


def checkpoint_folder(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the checkpoints."""
  return workdir / "checkpoints"


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints that a workdir holds, in any order."""
  return checkpoint_storage.steps(checkpoint_folder(workdir))


def add_class_names(
  workdir: pathlib.Path, dataset: str, names: Sequence[str]
) -> None:
  """Adds the class names of a data set to `classes.json`.

  Args:
    workdir: is created.
    dataset: the name of the data set, as `results.json` holds it.
    names: by label; nothing is written without classes.

  Raises:
    UserError: if the file cannot be read or written.
  """
  if not names:
    return
  path = workdir / _CLASSES_FILE
  known: dict[str, Any] = {}
  try:
    if path.exists():
      known = files.read_json(path)
  except files.DamagedError as error:  # Other names are written again.
    files.set_aside(path, error, "")
  write_json(path, known | {dataset: list(names)})


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a file of a workdir; `UserError` if it cannot be written."""
  with files.atomic_write(path, _REMEDY) as file:
    file.write_text(json.dumps(value, indent=2) + "\n")


def write_broken_files(
  workdir: pathlib.Path, broken: Sequence[tuple[str, str]]
) -> pathlib.Path:
  """Writes `broken_files.txt`, one file and reason per line; returns its path."""
  path = workdir / "broken_files.txt"
  with files.atomic_write(path, _REMEDY) as file:
    file.write_text("".join(f"{name}\t{reason}\n" for name, reason in broken))
  return path


def check_space(
  workdir: pathlib.Path,
  state: TrainState,
  settings: schema.CheckpointConfig,
  total_steps: int,
) -> None:
  """Raises `UserError` if the disk has no room for the checkpoints of a run.

  Args:
    workdir: its disk is checked; for a bucket, that of the temporary folder, through
      which one checkpoint at a time passes.
    state: what a checkpoint holds, after the last step made.
    settings: when the run saves, and what it keeps.
    total_steps: the last step of the run.
  """
  count = _more_checkpoints(workdir, int(state.step), settings, total_steps)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  if files.is_in_bucket(workdir):
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
      raise errors.UserError(
        f"{folder} has {free / 1e9:.1f} GB free, and each checkpoint passes through"
        f" it and needs {size / 1e9:.1f} GB; free space, or set TMPDIR to a folder"
        " on another disk."
      )
    return
  free = shutil.disk_usage(workdir).free
  if free < count * size:
    raise errors.UserError(
      f"{workdir} has {free / 1e9:.1f} GB free, and the run needs"
      f" {count * size / 1e9:.1f} GB for {count} more checkpoints"
      f" (checkpoint.keep={settings.keep}, keep_every={settings.keep_every});"
      " free space, keep fewer or save less often."
    )


def _more_checkpoints(
  workdir: pathlib.Path,
  step: int,
  settings: schema.CheckpointConfig,
  total_steps: int,
) -> int:
  """Returns how many checkpoints a run may add to those that it has, at most."""

  def multiples(every: int) -> int:
    """Steps that are left and divisible by `every`."""
    return total_steps // every - step // every if every else 0

  def is_for_good(step: int) -> bool:
    return bool(settings.keep_every) and step % settings.keep_every == 0

  for_good = multiples(settings.keep_every)
  written = 1 + multiples(settings.every_steps)  # The last step is one, too.
  if settings.every_seconds:
    written += _DAY_SECONDS // settings.every_seconds
  # One more than `keep` exists while the oldest is replaced.
  old = [old for old in checkpoint_steps(workdir) if not is_for_good(old)]
  room = max(settings.keep + 1 + settings.keep_best - len(old), 1)
  return min(for_good + min(written, room), total_steps - step)
