"""What is kept after training: the online encoder, in one file.

A safetensors file, which any framework reads without running anything in it. Its
arrays are `params/MODULE/NAME` and `state/MODULE/NAME`, by Haiku's names; its
metadata say which network they are of and which images it wants.
"""

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

from byol_jax import config as config_lib
from byol_jax import errors
from byol_jax.config import Config
from byol_jax.learning.learner import TrainState
from byol_jax.models import networks
from byol_jax.models.encode import Encode, make_encode
from byol_jax.runtime import files, processes
from byol_jax.training import runs

_FORMAT = "byol_jax.encoder.1"

# The settings without which an encoder cannot be used as it was trained.
_KEYS = (
  "data.image_size",
  "data.channels",
  "data.eval_crop",
  "data.mean",
  "data.std",
  "model.encoder.name",
  "model.encoder.width",
  "model.encoder.version",
  "model.encoder.stem",
  "model.encoder.pooling",
  "model.batch_norm.eps",
  "train.precision",
)


class Encoder(NamedTuple):
  """A frozen encoder and what it was trained to see.

  Attributes:
    encode: from images, [B, S, S, C] in [0, 1], to features, [B, D] float32.
    image_size: S.
    channels: C.
    step: updates that it was trained for.
  """

  encode: Encode
  image_size: int
  channels: int
  step: int


def write(run: runs.Run, state: TrainState) -> pathlib.Path:
  """Writes the online encoder to `encoder/encoder.safetensors` of a workdir.

  Args:
    run: from `train.prepare`.
    state: what was trained.

  Returns:
    The file.

  Raises:
    UserError: if it cannot be written.
  """
  path = run.workdir / "encoder" / "encoder.safetensors"
  if not processes.is_first():
    return path
  settings = {key: config_lib.value_at(run.config, key) for key in _KEYS}
  metadata = {
    "format": _FORMAT,
    "step": str(int(state.step)),
    "config": json.dumps(settings),
  }
  arrays = jax.device_get(
    _flat("params", state.online_params) | _flat("state", state.online_state)
  )
  # It takes an array's memory as it lies.
  arrays = {name: np.asarray(x, order="C") for name, x in arrays.items()}
  with files.replacing(path, "free space there and export again") as file:
    file.write_bytes(safetensors.numpy.save(arrays, metadata))
  return path


def load(path: str | pathlib.Path) -> Encoder:
  """The encoder in a file, ready for use; needs neither data nor a workdir.

  Raises:
    UserError: if the file is not one that `write` makes.
  """
  config = fitted(config_lib.default_config(), path)
  network = runs.build_network(config, num_classes=1)
  params, state = _variables(network, config, path)
  return Encoder(
    encode=make_encode(network, params, state),
    image_size=config.data.image_size,
    channels=config.data.channels,
    step=int(_metadata(path)["step"]),
  )


def fitted(config: Config, path: str | pathlib.Path) -> Config:
  """A configuration, of which the encoder in a file decides what it must.

  That is the encoder's architecture and precision, and how images are cropped,
  scaled and normalised for it.

  Raises:
    UserError: if the file is not one that `write` makes.
  """
  settings = json.loads(_metadata(path)["config"])
  config = config.copy_and_resolve_references()
  # JSON has no tuples.
  config.update_from_flattened_dict(
    {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
  )
  return config


def restore(run: runs.Run, path: str | pathlib.Path) -> TrainState:
  """The encoder in a file as a state that can be evaluated, not trained.

  Args:
    run: of a configuration from `fitted`.
    path: the file.

  Raises:
    UserError: if the file is not one that `write` makes, or the workdir is of
      a run, whose figures would be replaced.
  """
  with run.open_checkpoints() as saved:
    if saved.latest_step() is not None:
      raise errors.UserError(
        f"{run.workdir} holds a run, whose figures those of {path} would"
        " replace; choose another --workdir."
      )
  network = runs.build_network(run.config, run.num_classes)
  params, state = _variables(network, run.config, path)
  return TrainState(
    step=jnp.int32(_metadata(path)["step"]),
    online_params=params,
    target_params={},
    online_state=state,
    target_state={},
    opt_state=(),
  )


def _flat(kind: str, tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """The encoder's leaves of a network's, by name."""
  return {
    f"{kind}/{module}/{name}": leaf
    for module, leaves in tree.items()
    for name, leaf in leaves.items()
    if networks.is_of_encoder(module)
  }


def _metadata(path: str | pathlib.Path) -> dict[str, Any]:
  """What a file says of itself; `UserError` if it is none of ours."""
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
  network: hk.TransformedWithState, config: Config, path: str | pathlib.Path
) -> tuple[hk.Params, hk.State]:
  """The network's parameters and state: the file's, and of heads zeros."""
  side, channels = config.data.image_size, config.data.channels
  image = np.zeros((1, side, side, channels), np.float32)
  params, state = jax.eval_shape(
    lambda: network.init(jax.random.key(0), image, is_training=True)
  )
  found = safetensors.numpy.load_file(path)
  wanted = _flat("params", params) | _flat("state", state)
  for name in sorted(wanted.keys() | found.keys()):
    theirs, ours = (
      str(arrays[name].shape) if name in arrays else "absent"
      for arrays in (found, wanted)
    )
    if theirs != ours:
      raise errors.UserError(
        f"{path} is no {config.model.encoder.name} as its settings have it:"
        f" {name} is {theirs} there and should be {ours}; export it again."
      )

  def filled(kind: str, tree: Any) -> Any:
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
    return {
      module: {
        name: found.get(f"{kind}/{module}/{name}", zero)
        for name, zero in leaves.items()
      }
      for module, leaves in zeros.items()
    }

  return filled("params", params), filled("state", state)
