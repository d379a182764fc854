"""The workdir of a run: its settings, and whether it may be written to."""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files

METRICS_FILE = "metrics.jsonl"
_CONFIG_FILE = "config.json"
_CLASSES_FILE = "classes.json"
# Our choice: time-based checkpoints are counted for a day of training, since only
# training shows how long the steps that are left will take.
_DAY_SECONDS = 86_400
_REMEDY = "choose another --workdir"  # For a workdir that cannot be written.

# Settings that may change when a run resumes, since no parameter depends on them.
RESUME_SAFE_KEYS = (
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
# In `config.json` beside the settings: `loading.Source.fingerprint`.
_FINGERPRINT = "data.fingerprint"


def checkpoint_folder(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the checkpoints."""
  return workdir / "checkpoints"


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints that a workdir holds, in any order."""
  names = (path.name for path in checkpoint_folder(workdir).glob("*"))
  return [int(name) for name in names if name.isdigit()]


def read_settings(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the settings in `config.json`, by dotted key; {} without the file.

  Raises:
    UserError: the file is damaged or cannot be read.
  """
  path = workdir / _CONFIG_FILE
  if not path.exists():
    return {}
  try:
    settings = convert.flatten(files.read_json(path))
    if not settings:
      raise files.DamagedError("it holds no settings")
  except files.DamagedError as error:
    raise errors.UserError(
      f"{path} is damaged: {error}; put back a copy, or move it away to go on"
      " with the settings of this command."
    ) from error
  return settings


def settings_of(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the settings that own a workdir; {} until it holds a checkpoint."""
  return read_settings(workdir) if checkpoint_steps(workdir) else {}


def differences(
  theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> list[str]:
  """Returns the keys in which two runs differ and that parameters depend on.

  The values of `data.root` are the same if the images are, wherever they lie.
  The paths are compared only if a run of an earlier version did not store the
  fingerprint of its images.

  Args:
    theirs: settings by dotted key, as `read_settings` returns them.
    ours: likewise.

  Returns:
    The keys, sorted.
  """
  knows_images = theirs.get(_FINGERPRINT) and ours.get(_FINGERPRINT)

  def differs(key: str) -> bool:
    if key == "data.root" and knows_images:
      key = _FINGERPRINT
    return theirs.get(key) != ours.get(key)

  return [
    key
    for key in sorted(theirs.keys() | ours.keys())
    if not key.startswith((*RESUME_SAFE_KEYS, _FINGERPRINT)) and differs(key)
  ]


def shown(settings: Mapping[str, Any], key: str) -> str:
  """Returns the value that `differences` compares, for messages."""
  value = str(settings.get(key))
  if key == "data.root" and settings.get(_FINGERPRINT):
    value += f" (images {settings[_FINGERPRINT]})"
  return value


def check_settings(
  workdir: pathlib.Path, config: schema.Config, fingerprint: str
) -> None:
  """Raises `UserError` if the checkpoints were written with other settings.

  A key that is newer than the workdir had its default value there. That images
  of a folder have changed is left to `check_images`, as only training must not
  go on with others.

  Args:
    workdir: may hold no checkpoint.
    config: the resolved configuration.
    fingerprint: of the data set, from `loading.Source`.
  """
  theirs = settings_of(workdir)
  if not theirs:
    return
  ours = _settings(config, fingerprint)
  theirs = _settings(schema.Config(), "") | theirs
  for key in differences({name: theirs[name] for name in ours}, ours):
    if key != "data.root" or not has_other_images(workdir, fingerprint):
      raise errors.UserError(
        f"{workdir} holds a run with {key}={theirs[key]}, not {ours[key]};"
        " continue with its settings or choose another --workdir."
      )


def has_other_images(workdir: pathlib.Path, fingerprint: str) -> bool:
  """Returns whether the checkpoints were trained on other images of a folder.

  Args:
    workdir: may hold no checkpoint; those of earlier versions do not tell.
    fingerprint: of the images as they are now, from `loading.Source`.
  """
  return settings_of(workdir).get(_FINGERPRINT, fingerprint) != fingerprint


def check_images(
  workdir: pathlib.Path, config: schema.Config, fingerprint: str
) -> None:
  """Raises `UserError` if the checkpoints were trained on other images."""
  if has_other_images(workdir, fingerprint):
    raise errors.UserError(
      f"{workdir} holds a run on other images than data.root={config.data.root}"
      " has now; restore the images of that run or choose another --workdir."
    )


def _settings(config: schema.Config, fingerprint: str) -> dict[str, Any]:
  """Returns settings as `config.json` holds them, by dotted key."""
  settings = convert.flatten(convert.to_json(config))
  return settings | {_FINGERPRINT: fingerprint}


def write_settings(
  workdir: pathlib.Path, config: schema.Config, fingerprint: str
) -> None:
  """Writes `config.json`; `UserError` if the workdir cannot be written.

  Args:
    workdir: is created.
    config: the resolved configuration.
    fingerprint: of the data set, from `loading.Source`; "" is not written.
  """
  settings = convert.to_json(config)
  if fingerprint:
    settings["data"]["fingerprint"] = fingerprint
  _write_json(workdir / _CONFIG_FILE, settings)


def add_class_names(
  workdir: pathlib.Path, dataset: str, names: Sequence[str]
) -> None:
  """Adds the class names of a data set to `classes.json`.

  Args:
    workdir: is created.
    dataset: the name of the data set, as `results.json` holds it.
    names: by label; nothing is written without classes.

  Raises:
    UserError: if the file cannot be written.
  """
  if not names:
    return
  path = workdir / _CLASSES_FILE
  try:
    known = json.loads(path.read_text()) if path.exists() else {}
  except ValueError:  # It is damaged, and other names are written again.
    known = {}
  _write_json(path, known | {dataset: list(names)})


def _write_json(path: pathlib.Path, value: Any) -> None:
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
    workdir: its disk is checked.
    state: what a checkpoint holds, after the last step made.
    settings: when the run saves, and what it keeps.
    total_steps: the last step of the run.
  """
  count = _more_checkpoints(workdir, int(state.step), settings, total_steps)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
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
  room = max(settings.keep + 1 - len(old), 1)
  return min(for_good + min(written, room), total_steps - step)
