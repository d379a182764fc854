"""The settings that arrays need, inferred from their names and shapes."""

from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import encoders, networks

# By module and name. The leaves need a shape only.
Tree = Mapping[str, Mapping[str, Any]]

# The kernel of the first convolution for each stem.
_STEMS = {7: "imagenet", 3: "cifar"}
# Channels of the stem at width 1.
_STEM_CHANNELS = 64


def of_encoder(params: Tree) -> dict[str, Any]:
  """Returns the settings by key of the ResNet that has these parameters.

  Args:
    params: by our names; modules of heads are ignored.

  Raises:
    UserError: the reason, if they are of no encoder that is known.
  """
  roots = {m.split("/")[0] for m in params if networks.is_of_encoder(m)}
  names = {a.module_name: name for name, a in encoders.RESNETS.items()}
  if len(roots) != 1 or not roots & names.keys():
    raise errors.UserError(
      f"its modules begin with {', '.join(sorted(roots)) or 'no encoder'}, and"
      f" known are {', '.join(names)}"
    )
  (root,) = roots
  rows, _, channels, width = _shape(params, f"{root}/~/initial_conv", "w", 4)
  if rows not in _STEMS:
    raise errors.UserError(
      f"its first convolution has {rows} rows; model.encoder.stem has 7 (imagenet)"
      " or 3 (cifar)"
    )
  if channels not in (1, 3):
    raise errors.UserError(
      f"its first convolution takes {channels} channels; data.channels is 1 or 3"
    )
  is_v1 = f"{root}/~/initial_batchnorm" in params
  return {
    "data.channels": channels,
    "model.encoder.name": names[root],
    "model.encoder.width": width / _STEM_CHANNELS,
    "model.encoder.version": "v1" if is_v1 else "v2",
    "model.encoder.stem": _STEMS[rows],
  }


def of_heads(params: Tree) -> dict[str, Any]:
  """Returns the settings by key of projector and predictor; see `of_encoder`."""
  settings = {}
  for head in ("projector", "predictor"):
    linear = [m for m in params if m.startswith(f"{head}/linear")]
    settings[f"model.{head}.layers"] = len(linear)
    last = f"_{len(linear) - 1}" if len(linear) > 1 else ""
    _, output = _shape(params, f"{head}/linear{last}", "w", 2)
    if len(linear) > 1:
      _, hidden = _shape(params, f"{head}/linear", "w", 2)
      settings[f"model.{head}.hidden_size"] = hidden
    settings["model.projector.output_size"] = output
  return settings


def num_classes(params: Tree) -> int:
  """Returns the outputs of the online classifier; see `of_encoder`."""
  return _shape(params, "classifier", "w", 2)[1]


def check(
  network: hk.TransformedWithState,
  config: schema.Config,
  *found: tuple[Tree, Tree],
) -> None:
  """Raises `UserError`, the reason, for the first array that does not fit.

  Args:
    network: from `training.build`.
    config: of the network.
    *found: parameters and batch-norm statistics.
  """
  ours = _by_name(shapes(network, config))
  encoder = config.model.encoder
  for theirs in map(_by_name, found):
    for name in sorted(theirs.keys() | ours.keys()):
      there, here = theirs.get(name, "absent"), ours.get(name, "absent")
      if there != here:
        raise errors.UserError(
          f"for a {encoder.name} of width {encoder.width:g}, {name!r} is {there}"
          f" there and should be {here}"
        )


def shapes(network: hk.TransformedWithState, config: schema.Config) -> Any:
  """Returns the shapes and types of a network's parameters and state."""
  shape = (1, *schema.image_shape(config.data), config.data.channels)
  return jax.eval_shape(
    lambda key, images: network.init(key, images, is_training=True),
    jax.random.key(0),
    jax.ShapeDtypeStruct(shape, jnp.float32),
  )


def _by_name(trees: tuple[Tree, Tree]) -> dict[str, str]:
  """Returns the shapes of parameters and statistics by their names in files."""
  return {
    f"{kind}/{module}/{name}": str(tuple(leaf.shape))
    for kind, tree in zip(("params", "state"), trees, strict=True)
    for module, leaves in tree.items()
    for name, leaf in leaves.items()
  }


def _shape(params: Tree, module: str, name: str, rank: int) -> tuple[int, ...]:
  """Returns the shape of an array; `UserError`, the reason, if it has none."""
  leaf = params.get(module, {}).get(name)
  if leaf is None or len(leaf.shape) != rank:
    raise errors.UserError(f"it holds no {module}/{name} of rank {rank}")
  return tuple(leaf.shape)
