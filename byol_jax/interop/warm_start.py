"""Begins pretraining with a trained encoder instead of random weights."""

import collections
import contextlib
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.interop import weights
from byol_jax.learning.learner import TrainState
from byol_jax.models import encoders, networks
from byol_jax.runtime import files
from byol_jax.training import loop, saved_settings
from byol_jax.training.runs import Run

# The settings that decide which arrays an encoder has, and what they compute.
_ARCHITECTURE = (
  "data.channels",
  "model.batch_norm.eps",
  *(
    f"model.encoder.{field.name}"
    for field in dataclasses.fields(schema.EncoderConfig)
  ),
)
_NAME = "model.encoder.name"
# Those that a configuration may leave open, and the values that say so.
_OPEN = {
  _NAME: "auto",
  "model.encoder.stem": "auto",
  "data.mean": (),
  "data.std": (),
}
_INIT_FROM = "model.encoder.init_from"
# torchvision's counters of updates, one for each batch norm.
_COUNTER = re.compile(r".*\.(num_batches_tracked)")


def open_settings(
  config: schema.Config, workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns the settings that a configuration leaves to the encoder that it names.

  These are the stem and the normalisation, or all of `model.encoder` if its name is
  auto. A run that holds a checkpoint has them already, and no longer needs the file.
  It also keeps the name of the file: the configuration may give another path to it,
  one where it no longer is, or none.

  Args:
    config: names the place in `model.encoder.init_from`, if it names one; see
      `weights.read`.
    workdir: of the run.

  Returns:
    Values by key; {} for a run that starts from no file.

  Raises:
    UserError: if a new run cannot read the file, or it holds another architecture;
      or if an earlier part of the run started from another file.
  """
  path = config.model.encoder.init_from
  are_open = {
    key
    for key, is_open in _OPEN.items()
    if convert.value_at(config, key) == is_open
  }
  if _NAME in are_open:
    are_open |= {
      key for key in _ARCHITECTURE if key.startswith("model.encoder")
    }
  if begun := saved_settings.of_run(workdir):
    if not begun[_INIT_FROM]:
      return {}
    _check_same_file(path, workdir, begun[_INIT_FROM])
    return {key: begun[key] for key in (*are_open, _INIT_FROM)}
  if not path:
    if _NAME in are_open:
      raise errors.UserError(
        f"{_NAME}=auto is that of a trained encoder: set --config.{_INIT_FROM}=FILE,"
        f" or one of {', '.join(encoders.ENCODERS)}."
      )
    return {}
  theirs = convert.updated(config, weights.read(path).settings)
  for key in _ARCHITECTURE:
    value, wanted = (convert.value_at(c, key) for c in (config, theirs))
    if value != wanted and key not in are_open:
      raise errors.UserError(
        f"{key}={value!r} does not fit the encoder in {path!r}, which has"
        f" {wanted!r}; set --config.{key}={wanted}, or --config.{_INIT_FROM}= to"
        " start from random weights."
      )
  return {key: convert.value_at(theirs, key) for key in are_open}


def _check_same_file(path: str, workdir: pathlib.Path, theirs: str) -> None:
  """Raises `UserError` if a run started from other contents than a file has now."""
  started_from = saved_settings.read_history(workdir).get("started_from", {})
  expected, found = started_from.get("sha256"), _sha256(path)
  if expected and found and found != expected:
    raise errors.UserError(
      f"{workdir} holds a run that started from {theirs!r}, and {path!r} holds"
      f" another encoder; leave out --config.{_INIT_FROM}={path} or choose another"
      " --workdir."
    )


def _sha256(path: str) -> str:
  """Returns the checksum of a file; "" if there is none that can be read."""
  with contextlib.suppress(OSError), files.on_disk(path) as local:
    if local.is_file():  # Opening a pipe would wait.
      with local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
  return ""


def start(run: Run, tell: Callable[[str], None]) -> loop.Start:
  """Begins a run with the encoder that `model.encoder.init_from` names.

  The online and the target network take its parameters and its batch-norm
  statistics. The heads and the optimizer are those of any new run.

  Args:
    run: from `runs.prepare`, whose configuration has the
      `open_settings`.
    tell: is called with each line that the user should see.

  Raises:
    UserError: if the file cannot be read, or its arrays do not fit.
  """
  path = run.config.model.encoder.init_from
  found = weights.read(path)
  new = jax.device_get(run.initial_state())
  state = new._replace(
    online_params=_with_encoder(new.online_params, found.params),
    online_state=_with_encoder(new.online_state, found.statistics),
    target_params=_with_encoder(new.target_params, found.params),
    target_state=_with_encoder(new.target_state, found.statistics),
  )
  for line in _described(path, found, new):
    tell(line)
  mean, std = (found.settings[key] for key in ("data.mean", "data.std"))
  ours = run.config.data
  if (ours.mean, ours.std) != (mean, std):
    tell(
      f"Note: {path} was trained with data.mean={mean} and data.std={std}, not {ours.mean} and {ours.std}; leave both keys at"
      " () to keep them."
    )
  return loop.Start(state, origin(path, found.step))


def origin(path: str, step: int | None) -> dict[str, Any]:
  """Returns what `config.json` records of the place that a run starts from.

  Args:
    path: of the place. A workdir goes on changing, so it has no checksum.
    step: see `weights.Weights`.
  """
  known = {"file": path, "step": step, "sha256": _sha256(path)}
  return {key: value for key, value in known.items() if value not in ("", None)}


def _described(
  path: str, found: weights.Weights, new: TrainState
) -> Iterable[str]:
  """Yields what was taken, left out and newly made, by name and count."""
  made = sum(
    len(leaves)
    for tree in (new.online_params, new.online_state)
    for module, leaves in tree.items()
    if not networks.is_of_encoder(module)
  )
  step = "" if found.step is None else f", step {found.step}"
  yield (
    f"Encoder from {path}{step}: all its {found.taken} arrays are taken;"
    f" {made} arrays of the heads and the optimizer's state are new."
  )
  if found.left_out:
    yield f"Left out: {_grouped(found.left_out)}."
  if found.added:
    yield (
      f"New in the encoder: {len(found.added)} arrays of projections in place of"
      " identity shortcuts; they are the identity, but training normalises there."
    )


def _grouped(names: Iterable[str]) -> str:
  """Returns names for people; those of one head, and counters, as one."""
  counts = collections.Counter(
    name.split("/")[1] if "/" in name else _COUNTER.sub(r"\1", name)
    for name in names
  )
  return ", ".join(
    name if count == 1 else f"{name} ({count} arrays)"
    for name, count in counts.items()
  )


def _with_encoder(new: Mapping[str, Any], loaded: Mapping[str, Any]) -> Any:
  """Returns new variables with the encoder's modules of others, copied."""
  return {
    module: jax.tree.map(np.array, loaded[module])
    if networks.is_of_encoder(module)
    else leaves
    for module, leaves in new.items()
  }
