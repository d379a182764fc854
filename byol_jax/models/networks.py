"""The network of BYOL: encoder, projector, predictor, online classifier."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import encoders, layers
from byol_jax.models.heads import MLP

# The type that convolutions and linear layers compute in; None: the type of the
# images. Parameters, batch-norm statistics and outputs are float32 anyway.
PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}

_HEADS = ("projector", "predictor", "classifier")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """All that decides a network.

  Attributes:
    model: encoder, heads and batch norm.
    num_classes: outputs of the online classifier.
    mean: [channels], subtracted from the images' channels.
    std: [channels], by which the channels are then divided.
    precision: a name in `PRECISIONS`.
    remat: whether to compute residual blocks again for their gradient.
  """

  model: schema.ModelConfig
  num_classes: int
  mean: Sequence[float]
  std: Sequence[float]
  precision: str = "float32"
  remat: bool = False


class Outputs(NamedTuple):
  """The outputs for a batch of images.

  Attributes:
    embedding: [B, D], of the encoder, which is kept after training.
    projection: [B, P], the target network's side of the loss.
    prediction: [B, P], the online network's side of the loss.
    logits: [B, C], of the online classifier; no gradient reaches the encoder.
  """

  embedding: chex.Array
  projection: chex.Array
  prediction: chex.Array
  logits: chex.Array


def make_network(config: NetworkConfig) -> hk.TransformedWithState:
  """Returns the pure functions `init` and `apply` of the whole network.

  `apply(params, state, images, is_training, axis_name=None)` maps one view,
  [B, H, W, C] in [0, 1], to `Outputs` and the new batch-norm state. With
  `axis_name`, batch statistics are those of all devices on that axis. Several
  views, [V, B, H, W, C], are processed side by side and keep statistics of their
  own, as in the reference.

  Raises:
    UserError: if a name is unknown.
  """
  encoders.find(config.model.encoder)
  if config.precision not in PRECISIONS:
    raise errors.unknown_name("train.precision", config.precision, PRECISIONS)

  def forward(
    images: chex.Array, is_training: bool, axis_name: str | None = None
  ) -> Outputs:
    chex.assert_shape(images, (..., None, None, None, len(config.mean)))
    outer, dtype = images.shape[:-3], images.dtype
    views = images.reshape(-1, *images.shape[-4:])
    outputs = _apply_parts(config, views, is_training, axis_name)
    return jax.tree.map(
      lambda x: x.reshape(*outer, x.shape[-1]).astype(dtype), outputs
    )

  return hk.without_apply_rng(hk.transform_with_state(forward))


def _apply_parts(
  config: NetworkConfig,
  images: chex.Array,
  is_training: bool,
  axis_name: str | None,
) -> Outputs:
  """Builds the parts of the network and applies them to [V, B, H, W, C]."""
  model = config.model
  bn_config = dict(
    decay_rate=model.batch_norm.decay_rate,
    eps=model.batch_norm.eps,
    axis_name=axis_name,
  )
  encoder = encoders.find(model.encoder).build(
    model.encoder, bn_config=bn_config, remat=config.remat
  )
  size = model.projector.output_size
  projector = MLP(
    model.projector.layers,
    model.projector.hidden_size,
    size,
    bn_config,
    "projector",
  )
  predictor = MLP(
    model.predictor.layers,
    model.predictor.hidden_size,
    size,
    bn_config,
    "predictor",
  )
  classifier = hk.Linear(config.num_classes, name="classifier")

  dtype = images.dtype
  compute = PRECISIONS[config.precision] or dtype
  policy = jmp.Policy(
    param_dtype=dtype, compute_dtype=compute, output_dtype=compute
  )
  images = (images - _per_channel(config.mean)) / _per_channel(config.std)
  with (
    hk.mixed_precision.push_policy(layers.Conv2D, policy),
    hk.mixed_precision.push_policy(hk.Linear, policy),
  ):
    embedding = encoder(images, is_training)
    projection = projector(embedding, is_training)
    prediction = predictor(projection, is_training)
    # Labels must not shape the representation that they evaluate.
    logits = classifier(jax.lax.stop_gradient(embedding))
  return Outputs(embedding, projection, prediction, logits)


def _per_channel(values: Sequence[float]) -> chex.Array:
  return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 1, -1)


def is_of_encoder(module: str) -> bool:
  """Returns whether a module, named as in the parameters, is of the encoder."""
  return module.split("/")[0] not in _HEADS
