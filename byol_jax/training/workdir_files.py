"""The workdir of a run: its settings, and whether it may be written to."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import chex
import jax

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.runtime import files

METRICS_FILE = "metrics.jsonl"
_CONFIG_FILE = "config.json"
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


def checkpoint_folder(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the checkpoints."""
  return workdir / "checkpoints"


def num_checkpoints(workdir: pathlib.Path) -> int:
  """Returns how many checkpoints a workdir holds."""
  folder = checkpoint_folder(workdir)
  return sum(path.name.isdigit() for path in folder.glob("*"))


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
  return read_settings(workdir) if num_checkpoints(workdir) else {}


def check_settings(workdir: pathlib.Path, config: schema.Config) -> None:
  """Raises `UserError` if the checkpoints were written with other settings.

  A key that is newer than the workdir had its default value there.
  """
  theirs = settings_of(workdir)
  if not theirs:
    return
  theirs = convert.flatten(convert.to_json(schema.Config())) | theirs
  ours = convert.flatten(convert.to_json(config))
  for key in sorted(ours):
    if theirs[key] != ours[key] and not key.startswith(RESUME_SAFE_KEYS):
      raise errors.UserError(
        f"{workdir} holds a run with {key}={theirs[key]}, not {ours[key]};"
        " continue with its settings or choose another --workdir."
      )


def write_settings(workdir: pathlib.Path, config: schema.Config) -> None:
  """Writes `config.json`; `UserError` if the workdir cannot be written."""
  text = json.dumps(convert.to_json(config), indent=2) + "\n"
  with files.atomic_write(workdir / _CONFIG_FILE, _REMEDY) as file:
    file.write_text(text)


def write_broken_files(
  workdir: pathlib.Path, broken: Sequence[tuple[str, str]]
) -> pathlib.Path:
  """Writes `broken_files.txt`, one file and reason per line; returns its path."""
  path = workdir / "broken_files.txt"
  with files.atomic_write(path, _REMEDY) as file:
    file.write_text("".join(f"{name}\t{reason}\n" for name, reason in broken))
  return path


def check_space(
  workdir: pathlib.Path, state: chex.ArrayTree, keep: int
) -> None:
  """Raises `UserError` if the disk has no room for `keep` checkpoints.

  Args:
    workdir: its disk is checked.
    state: what a checkpoint holds.
    keep: the setting `checkpoint.keep`.
  """
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  # One more than `keep` exists while the oldest is replaced.
  needed = size * max(keep + 1 - num_checkpoints(workdir), 1)
  free = shutil.disk_usage(workdir).free
  if free < needed:
    raise errors.UserError(
      f"{workdir} has {free / 1e9:.1f} GB free and checkpoint.keep={keep} needs"
      f" {needed / 1e9:.1f} GB more; free space or keep fewer."
    )
