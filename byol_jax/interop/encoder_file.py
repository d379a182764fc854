"""A trained encoder in one file, which is all that is needed to use it.

The file is a safetensors file, which any framework reads without running code
from it. Its arrays are `params/MODULE/NAME` and `state/MODULE/NAME`, by Haiku's
names; its metadata name the network and how images are prepared for it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from byol_jax import errors
from byol_jax.config import convert, presets, schema
from byol_jax.learning.learner import TrainState
from byol_jax.models import encode, networks
from byol_jax.runtime import files
from byol_jax.training import build

_FORMAT = "byol_jax.encoder.1"

# The settings without which an encoder cannot be used as it was trained. Of its own
# section, only what decides initial values is not among them.
_KEYS = (
  "data.image_size",
  "data.channels",
  "data.eval_crop",
  "data.mean",
  "data.std",
  *(
    f"model.encoder.{field.name}"
    for field in dataclasses.fields(schema.EncoderConfig)
    if field.name not in ("init_from", "zero_init_last_scale")
  ),
  "model.batch_norm.eps",
  "train.precision",
)


class Encoder(NamedTuple):
  """A frozen encoder and the images that it expects.

  Attributes:
    encode: maps images, [B, S, S, C] in [0, 1], to features, [B, D] float32.
    image_size: S.
    channels: C.
    step: updates that it was trained for.
  """

  encode: encode.Encode
  image_size: int
  channels: int
  step: int


def write(path: pathlib.Path, config: schema.Config, state: TrainState) -> None:
  """Writes the online encoder of a state to a file.

  Args:
    path: the file, which is replaced; its folder is created.
    config: the resolved configuration of the run.
    state: its online encoder is written.

  Raises:
    UserError: if the file cannot be written.
  """
  settings = {key: convert.value_at(config, key) for key in _KEYS}
  metadata = {
    "format": _FORMAT,
    "step": str(int(state.step)),
    "config": json.dumps(settings),
  }
  arrays = jax.device_get(
    _encoder_leaves("params", state.online_params)
    | _encoder_leaves("state", state.online_state)
  )
  # safetensors writes the memory of an array as it lies.
  arrays = {name: np.asarray(x, order="C") for name, x in arrays.items()}
  with files.atomic_write(path, "free space there and export again") as file:
    file.write_bytes(safetensors.numpy.save(arrays, metadata))


def load(path: str | pathlib.Path) -> Encoder:
  """Returns the encoder in a file, ready for use without data or workdir.

  Raises:
    UserError: if `write` did not make the file.
  """
  config = config_for(presets.default_config(), path)
  network = build.build_network(config, num_classes=1)
  params, state = _variables(network, config, path)
  return Encoder(
    encode=encode.make_encode(network, params, state),
    image_size=config.data.image_size,
    channels=config.data.channels,
    step=int(_metadata(path)["step"]),
  )


def config_for(
  config: schema.Config, path: str | pathlib.Path
) -> schema.Config:
  """Returns a configuration with the settings that an encoder in a file needs.

  These are the encoder's architecture and precision, and how images are cropped,
  scaled and normalised for it. All other settings are those of `config`.

  Raises:
    UserError: if `write` did not make the file.
  """
  return convert.updated(config, json.loads(_metadata(path)["config"]))


def restore(
  path: str | pathlib.Path, config: schema.Config, num_classes: int
) -> TrainState:
  """Returns the encoder in a file as a state to evaluate, not to train.

  Args:
    path: the file.
    config: from `config_for`.
    num_classes: outputs of the online classifier, which is all zeros.

  Raises:
    UserError: if `write` did not make the file.
  """
  network = build.build_network(config, num_classes)
  params, state = _variables(network, config, path)
  return TrainState(
    step=jnp.int32(_metadata(path)["step"]),
    online_params=params,
    target_params={},
    online_state=state,
    target_state={},
    opt_state=(),
  )


def _encoder_leaves(
  kind: str, tree: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
  """Returns the leaves of the encoder, by their names in the file."""
  return {
    f"{kind}/{module}/{name}": leaf
    for module, leaves in tree.items()
    for name, leaf in leaves.items()
    if networks.is_of_encoder(module)
  }


def _metadata(path: str | pathlib.Path) -> dict[str, Any]:
  """Returns the metadata of a file; `UserError` if it is not an encoder's."""
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      metadata = file.metadata() or {}
  except (OSError, safetensors.SafetensorError) as error:
    raise errors.UserError(
      f"{path} cannot be read as an encoder: {error}; give a file that"
      " --mode=export wrote."
    ) from error
  if metadata.get("format") != _FORMAT:
    raise errors.UserError(
      f"{path} is of format {metadata.get('format')}, not {_FORMAT}; give a"
      " file that --mode=export wrote."
    )
  return metadata


def _variables(
  network: hk.TransformedWithState,
  config: schema.Config,
  path: str | pathlib.Path,
) -> tuple[hk.Params, hk.State]:
  """Returns a network's variables: the encoder's of a file, zeros for the heads."""
  side, channels = config.data.image_size, config.data.channels
  image = np.zeros((1, side, side, channels), np.float32)
  params, state = jax.eval_shape(
    lambda: network.init(jax.random.key(0), image, is_training=True)
  )
  found = safetensors.numpy.load_file(path)
  wanted = _encoder_leaves("params", params) | _encoder_leaves("state", state)
  for name in sorted(wanted.keys() | found.keys()):
    theirs, ours = (
      str(arrays[name].shape) if name in arrays else "absent"
      for arrays in (found, wanted)
    )
    if theirs != ours:
      raise errors.UserError(
        f"{path} does not hold the {config.model.encoder.name} of its settings:"
        f" {name} is {theirs} there and should be {ours}; export it again."
      )

  def filled(kind: str, tree: Any) -> Any:
    return {
      module: {
        name: found.get(
          f"{kind}/{module}/{name}", np.zeros(leaf.shape, leaf.dtype)
        )
        for name, leaf in leaves.items()
      }
      for module, leaves in tree.items()
    }

  return filled("params", params), filled("state", state)
