"""The workdir of a run: its settings, and whether it may be written to."""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.runtime import files
from byol_jax.training import plan

METRICS_FILE = "metrics.jsonl"
_LENGTH_KEYS = ("train.steps", "train.epochs")
_CONFIG_FILE = "config.json"
_HISTORY = "history"  # Its section that is no setting.
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
  return len(_checkpoint_steps(workdir))


def _checkpoint_steps(workdir: pathlib.Path) -> list[int]:
  names = (path.name for path in checkpoint_folder(workdir).glob("*"))
  return [int(name) for name in names if name.isdigit()]


def read_settings(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what `config.json` holds, by dotted key; {} without the file.

  A key that is newer than the workdir had its default value there.
  """
  path = workdir / _CONFIG_FILE
  if not path.exists():
    return {}
  defaults = convert.flatten(convert.to_json(schema.Config()))
  return defaults | convert.flatten(json.loads(path.read_text()))


def read_history(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the section `history` of `config.json`, {} without one.

  Returns:
    `started_from`, the encoder file that training began with: its `file`, `step`
    and `sha256`; and `extended_at`, the steps at which the run had ended before
    it was trained on. Either may be absent.
  """
  path = workdir / _CONFIG_FILE
  if not path.exists():
    return {}
  return json.loads(path.read_text()).get(_HISTORY, {})


def settings_of(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the settings that own a workdir; {} until it holds a checkpoint."""
  return read_settings(workdir) if num_checkpoints(workdir) else {}


def check_settings(workdir: pathlib.Path, config: schema.Config) -> None:
  """Raises `UserError` if the checkpoints were written with other settings.

  `check_length` compares those that decide the length.
  """
  theirs = settings_of(workdir)
  if not theirs:
    return
  ours = convert.flatten(convert.to_json(config))
  free = (*RESUME_SAFE_KEYS, *_LENGTH_KEYS)
  for key in sorted(ours):
    if theirs[key] != ours[key] and not key.startswith(free):
      raise errors.UserError(
        f"{workdir} holds a run with {key}={theirs[key]}, not {ours[key]};"
        " continue with its settings or choose another --workdir."
      )


def check_length(
  workdir: pathlib.Path, config: schema.Config, num_examples: int
) -> int | None:
  """Compares the length of a run with that of the workdir's checkpoints.

  Args:
    workdir: of the run.
    config: the resolved configuration.
    num_examples: images in an epoch.

  Returns:
    The last step of a finished run that this configuration makes longer; None for
    any other run.

  Raises:
    UserError: if the run in the workdir has another length and has not ended, or
      has gone further than this one would.
  """
  theirs = settings_of(workdir)
  if not theirs:
    return None
  before = convert.updated(config, {key: theirs[key] for key in _LENGTH_KEYS})
  old, new = (
    plan.make_plan(c, num_examples).total_steps for c in (before, config)
  )
  if old == new:
    return None
  reached = max(_checkpoint_steps(workdir))
  if reached >= old and new > reached:
    return old
  remedy = (
    f"a run of {new} steps would be shorter; ask for more than {reached} to train on"
    if reached >= old
    else "continue with its length, as only a run that has ended can be trained on"
  )
  key = next(
    k for k in _LENGTH_KEYS if theirs[k] != convert.value_at(config, k)
  )
  raise errors.UserError(
    f"{workdir} holds a run with {key}={theirs[key]}, not"
    f" {convert.value_at(config, key)}, at step {reached} of {old}: {remedy}, or"
    " choose another --workdir."
  )


def write_settings(
  workdir: pathlib.Path,
  config: schema.Config,
  history: Mapping[str, Any] | None = None,
) -> None:
  """Writes `config.json`.

  Args:
    workdir: of the run.
    config: the resolved configuration.
    history: see `read_history`.

  Raises:
    UserError: if the workdir cannot be written.
  """
  contents = convert.to_json(config)
  if history:
    contents[_HISTORY] = dict(history)
  text = json.dumps(contents, indent=2) + "\n"
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
