"""Begins pretraining with a trained encoder instead of random weights."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from byol_jax import errors
from byol_jax.config import convert, presets, schema
from byol_jax.interop import encoder_file
from byol_jax.models import networks
from byol_jax.runtime import files
from byol_jax.training import loop, saved_settings
from byol_jax.training.runs import Run

# The settings that decide which arrays an encoder has, and what they compute.
_ARCHITECTURE = (
  "data.channels",
  *(
    f"model.encoder.{field.name}"
    for field in dataclasses.fields(schema.EncoderConfig)
  ),
)
# Those that a configuration may leave open, and the values that say so.
_OPEN = {
  "model.encoder.stem": "auto",
  "data.mean": (),
  "data.std": (),
}


def open_settings(
  config: schema.Config, workdir: pathlib.Path
) -> dict[str, Any]:
  """Returns the settings that a configuration leaves to its encoder file.

  These are the stem and the normalisation. A run that holds a checkpoint has
  them already, and no longer needs the file.

  Args:
    config: names the file in `model.encoder.init_from`.
    workdir: of the run.

  Returns:
    Values by key.

  Raises:
    UserError: if the file cannot be read, or holds another architecture.
  """
  path = config.model.encoder.init_from
  are_open = [
    key
    for key, is_open in _OPEN.items()
    if convert.value_at(config, key) == is_open
  ]
  if begun := saved_settings.of_run(workdir):
    return {key: begun[key] for key in are_open}
  theirs = encoder_file.config_for(config, path)
  for key in _ARCHITECTURE:
    value, wanted = (convert.value_at(c, key) for c in (config, theirs))
    if value != wanted and key not in are_open:
      raise errors.UserError(
        f"{key}={value} does not fit the encoder in {path}, which has {wanted};"
        f" set --config.{key}={wanted}, or leave model.encoder.init_from empty."
      )
  return {key: convert.value_at(theirs, key) for key in are_open}


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
  loaded = encoder_file.restore(path, run.config, run.num_classes)
  new = jax.device_get(run.initial_state())
  state = new._replace(
    online_params=_with_encoder(new.online_params, loaded.online_params),
    online_state=_with_encoder(new.online_state, loaded.online_state),
    target_params=_with_encoder(new.target_params, loaded.online_params),
    target_state=_with_encoder(new.target_state, loaded.online_state),
  )
  taken, made = _counts(new.online_params, new.online_state)
  tell(
    f"Encoder from {path}, step {int(loaded.step)}: all its {taken} arrays are"
    f" taken; {made} arrays of the heads and the optimizer's state are new."
  )
  theirs = encoder_file.config_for(presets.default_config(), path).data
  ours = run.config.data
  if (ours.mean, ours.std) != (theirs.mean, theirs.std):
    tell(
      f"Note: {path} was trained with data.mean={theirs.mean} and"
      f" data.std={theirs.std}, not {ours.mean} and {ours.std}; leave both keys at"
      " () to keep them."
    )
  with files.on_disk(path) as local, local.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return loop.Start(
    state, {"file": path, "step": int(loaded.step), "sha256": digest}
  )


def _with_encoder(new: Mapping[str, Any], loaded: Mapping[str, Any]) -> Any:
  """Returns new variables with the encoder's modules of others, copied."""
  return {
    module: jax.tree.map(np.array, loaded[module])
    if networks.is_of_encoder(module)
    else leaves
    for module, leaves in new.items()
  }


def _counts(*trees: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
  """Returns the number of arrays of the encoder, and of the heads."""
  sizes = [
    (networks.is_of_encoder(module), len(leaves))
    for tree in trees
    for module, leaves in tree.items()
  ]
  encoder = sum(size for is_encoder, size in sizes if is_encoder)
  return encoder, sum(size for _, size in sizes) - encoder
