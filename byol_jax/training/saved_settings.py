"""The settings of a run in `config.json`, and which of them may change."""

import pathlib
from collections.abc import Mapping
from typing import Any

from byol_jax import errors
from byol_jax.config import convert, schema, validation
from byol_jax.runtime import files
from byol_jax.training import plan, workdir_files

_FILE = "config.json"
# Its section that is no setting.
_HISTORY = "history"
# In it beside the settings: `data.source.Source.fingerprint`.
_FINGERPRINT = "data.fingerprint"
_LENGTH_KEYS = ("train.steps", "train.epochs")

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
  "export.",
  "checkpoint.",
  "log.",
)


def read(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what `config.json` holds, by dotted key; {} without the file.

  A key that is newer than the workdir had its default value there.

  Raises:
    UserError: the file is damaged or cannot be read.
  """
  contents = convert.flatten(_contents(workdir))
  defaults = convert.flatten(convert.to_json(schema.Config()))
  return defaults | contents if contents else {}


def read_history(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the section `history` of `config.json`, {} without one.

  Returns:
    `started_from`, the weights that training began with: their `file`, and `step`
    and `sha256` if they have any; and `extended_at`, the steps at which the run had
    ended before it was trained on. Either may be absent.

  Raises:
    UserError: the file is damaged or cannot be read.
  """
  return _contents(workdir).get(_HISTORY, {})


def _contents(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the contents of `config.json`, {} without the file."""
  path = workdir / _FILE
  if not path.exists():
    return {}
  try:
    contents = files.read_json(path)
    _check_contents(contents)
  except files.DamagedError as error:
    raise errors.UserError(
      f"{path} is damaged: {error}; put back a copy, or move it away to go on"
      " with the settings of this command."
    ) from error
  return contents


def _check_contents(contents: Mapping[str, Any]) -> None:
  """Raises `files.DamagedError` for what `write` never wrote."""
  if not contents:
    raise files.DamagedError("it holds no settings")
  try:
    validation.validate(convert.from_json(contents, schema.Config()))
  except (TypeError, errors.UserError) as error:
    raise files.DamagedError(str(error).rstrip(".")) from error
  history = contents.get(_HISTORY, {})
  is_history = (
    isinstance(history, dict)
    and isinstance(history.get("started_from", {}), dict)
    and isinstance(history.get("extended_at", []), list)
    and all(type(step) is int for step in history.get("extended_at", []))
  )
  if not is_history:
    raise files.DamagedError(f"{_HISTORY}={history!r} is no history")


def of_run(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the settings that own a workdir; {} until it holds a checkpoint."""
  return read(workdir) if workdir_files.checkpoint_steps(workdir) else {}


def differences(
  theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> list[str]:
  """Returns the keys in which two runs differ and that parameters depend on.

  The values of `data.root` are the same if the images are, wherever they lie, and
  so are the paths of CSV files in `data.labels`.
  The paths are compared only if a run of an earlier version did not store the
  fingerprint of its images.

  Args:
    theirs: settings by dotted key, as `read` returns them.
    ours: likewise.

  Returns:
    The keys, sorted.
  """
  knows_images = theirs.get(_FINGERPRINT) and ours.get(_FINGERPRINT)

  def differs(key: str) -> bool:
    values = theirs.get(key), ours.get(key)
    is_path = key == "data.root" or (
      key == "data.labels" and not any(x in schema.LABELS for x in values)
    )
    if knows_images and is_path:
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


def check(
  workdir: pathlib.Path, config: schema.Config, fingerprint: str
) -> None:
  """Raises `UserError` if the checkpoints were written with other settings.

  Two differences are not checked here. `check_length` compares the length, which
  may grow. `check_images` compares the images of a folder, which training calls:
  a run may be evaluated when its images have changed, but not trained on others.

  Args:
    workdir: may hold no checkpoint.
    config: the resolved configuration.
    fingerprint: of the data set, from `data.source.Source`.
  """
  theirs = of_run(workdir)
  if not theirs:
    return
  ours = convert.flatten(convert.to_json(config)) | {_FINGERPRINT: fingerprint}
  for key in differences({name: theirs.get(name) for name in ours}, ours):
    has_other_rule = key in _LENGTH_KEYS or (
      key == "data.root" and has_other_images(workdir, fingerprint)
    )
    if not has_other_rule:
      raise errors.UserError(
        f"{workdir} holds a run with {key}={theirs[key]!r}, not {ours[key]!r};"
        f" set --config.{key}={theirs[key]} or choose another --workdir."
      )


def has_other_images(workdir: pathlib.Path, fingerprint: str) -> bool:
  """Returns whether the checkpoints were trained on other images of a folder.

  Args:
    workdir: may hold no checkpoint; those of earlier versions do not tell.
    fingerprint: of the images as they are now, from `data.source.Source`.
  """
  return of_run(workdir).get(_FINGERPRINT, fingerprint) != fingerprint


def check_images(
  workdir: pathlib.Path, config: schema.Config, fingerprint: str
) -> None:
  """Raises `UserError` if the checkpoints were trained on other images."""
  if has_other_images(workdir, fingerprint):
    raise errors.UserError(
      f"{workdir} holds a run on other images than data.root={config.data.root}"
      " has now; restore the images of that run or choose another --workdir."
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
  theirs = of_run(workdir)
  if not theirs:
    return None
  before = convert.updated(config, {key: theirs[key] for key in _LENGTH_KEYS})
  old, new = (
    plan.make_plan(c, num_examples).total_steps for c in (before, config)
  )
  if old == new:
    return None
  reached = max(workdir_files.checkpoint_steps(workdir))
  # A run that was to be longer may have stopped before it saved a further step.
  has_ended = reached >= old or theirs.get(f"{_HISTORY}.extended_at", [])[
    -1:
  ] == [reached]
  if has_ended and new >= reached:
    return reached if new > reached else None
  key = next(
    k for k in _LENGTH_KEYS if theirs[k] != convert.value_at(config, k)
  )
  remedy, rule = (
    (f"{reached} or more", "a run never becomes shorter")
    if has_ended
    else (f"{old}", "only a run that has ended can be trained longer")
  )
  raise errors.UserError(
    f"Set --config.train.steps={remedy} or choose another --workdir: {workdir}"
    f" holds a run at step {reached} of {old}, not of {new}"
    f" ({key}={convert.value_at(config, key)!r}), and {rule}."
  )


def write(
  workdir: pathlib.Path,
  config: schema.Config,
  fingerprint: str,
  history: Mapping[str, Any] | None = None,
) -> None:
  """Writes `config.json`.

  Args:
    workdir: is created.
    config: the resolved configuration.
    fingerprint: of the data set, from `data.source.Source`; "" is not written.
    history: see `read_history`.

  Raises:
    UserError: if the workdir cannot be written.
  """
  contents = convert.to_json(config)
  if fingerprint:
    contents["data"]["fingerprint"] = fingerprint
  if history:
    contents[_HISTORY] = dict(history)
  workdir_files.write_json(workdir / _FILE, contents)
