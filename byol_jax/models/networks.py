"""The network of BYOL: encoder, projector, predictor, online classifier."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import encoders, layers, norms, predictors
from byol_jax.models.batch_norm import Settings
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
    image_shape: height and width of the images in pixels, which some encoders must
      divide.
    mean: [channels], subtracted from the images' channels.
    std: [channels], by which the channels are then divided.
    precision: a name in `PRECISIONS`.
    remat: whether to compute blocks of the encoder again for their gradient.
  """

  model: schema.ModelConfig
  num_classes: int
  image_shape: tuple[int, int]
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


class Encoded(NamedTuple):
  """What the encoder alone makes of a batch of images.

  Attributes:
    embedding: [B, D], pooled from the feature map of the stage called final.
    stages: the feature map of each stage by its name, [B, h, w, F]; h and w depend
      on the size of the images.
  """

  embedding: chex.Array
  stages: dict[str, chex.Array]


def make_network(config: NetworkConfig) -> hk.TransformedWithState:
  """Returns the pure functions `init` and `apply` of the whole network.

  `apply(params, state, images, is_training, axis_name=None)` maps one view,
  [B, H, W, C] in [0, 1], to `Outputs` and the new batch-norm state. With
  `axis_name`, batch statistics are those of all devices on that axis. Several
  views, [V, B, H, W, C], are processed side by side and keep statistics of their
  own, as in the reference.

  Raises:
    UserError: if a name is unknown, or an option does not suit the encoder.
  """
  _check_names(config)

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


def make_encoder(config: NetworkConfig) -> hk.TransformedWithState:
  """Returns the pure functions `init` and `apply` of the encoder alone.

  `apply(params, state, images, is_training)` maps [B, H, W, C] in [0, 1] to
  `Encoded` and the new batch-norm state. Parameters and state are the part of
  `make_network`'s of which `is_of_encoder` holds.

  Raises:
    UserError: if a name is unknown, or an option does not suit the encoder.
  """
  _check_names(config)

  def forward(images: chex.Array, is_training: bool) -> Encoded:
    encoded = _encode(config, images[None], is_training, axis_name=None)
    return jax.tree.map(lambda x: x[0].astype(images.dtype), encoded)

  return hk.without_apply_rng(hk.transform_with_state(forward))


def _check_names(config: NetworkConfig) -> None:
  encoders.find(config.model.encoder, config.image_shape)
  predictors.find(config.model)
  for head in ("projector", "predictor"):
    norm = getattr(config.model, head).norm
    if norm not in norms.NORMS:
      raise errors.unknown_name(f"model.{head}.norm", norm, norms.NORMS)
  if config.precision not in PRECISIONS:
    raise errors.unknown_name("train.precision", config.precision, PRECISIONS)


def _apply_parts(
  config: NetworkConfig,
  images: chex.Array,
  is_training: bool,
  axis_name: str | None,
) -> Outputs:
  """Builds the parts of the network and applies them to [V, B, H, W, C]."""
  model = config.model
  bn_settings = _bn_settings(config, axis_name)
  projector = MLP(
    model.projector.layers,
    model.projector.hidden_size,
    model.projector.output_size,
    model.projector.norm,
    bn_settings,
    "projector",
  )
  predictor = predictors.find(model)(model, bn_settings)
  classifier = hk.Linear(config.num_classes, name="classifier")

  embedding = _encode(config, images, is_training, axis_name).embedding
  with _precision(config, images.dtype):
    projection = projector(embedding, is_training)
    prediction = predictor(projection, is_training)
    # Labels must not shape the representation that they evaluate.
    logits = classifier(jax.lax.stop_gradient(embedding))
  return Outputs(embedding, projection, prediction, logits)


def _encode(
  config: NetworkConfig,
  images: chex.Array,
  is_training: bool,
  axis_name: str | None,
) -> Encoded:
  """Builds the encoder and applies it to [V, B, H, W, C]."""
  encoder = encoders.find(config.model.encoder, config.image_shape).build(
    config.model.encoder,
    bn_settings=_bn_settings(config, axis_name),
    remat=config.remat,
  )
  images = (images - _per_channel(config.mean)) / _per_channel(config.std)
  with _precision(config, images.dtype):
    stages, embedding = encoder(images, is_training)
  return Encoded(embedding, stages)


def _bn_settings(config: NetworkConfig, axis_name: str | None) -> Settings:
  """Returns how every batch norm works."""
  section = config.model.batch_norm
  return Settings(
    decay_rate=section.decay_rate,
    eps=section.eps,
    axis_name=axis_name,
    group_size=section.group_size,
    in_own_type=section.precision == "bfloat16",
  )


@contextlib.contextmanager
def _precision(config: NetworkConfig, dtype: Any) -> Iterator[None]:
  """Lets convolutions and linear layers in the block compute as configured."""
  compute = PRECISIONS[config.precision] or dtype
  policy = jmp.Policy(
    param_dtype=dtype, compute_dtype=compute, output_dtype=compute
  )
  with (
    hk.mixed_precision.push_policy(layers.Conv2D, policy),
    hk.mixed_precision.push_policy(layers.DepthwiseConv2D, policy),
    hk.mixed_precision.push_policy(hk.Linear, policy),
  ):
    yield


def _per_channel(values: Sequence[float]) -> chex.Array:
  return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 1, -1)


def initialiser(
  network: hk.TransformedWithState, images: chex.Array
) -> tuple[Callable[[chex.PRNGKey], hk.Params], hk.State]:
  """Returns a function that draws parameters, and the initial state of zeros.

  Haiku creates parameters by running the forward pass. Under `jit`, XLA removes
  all of it but the initialisers, as only they lead to the parameters. The state
  would depend on the images, so it is made from its shapes.
  """
  zeros = jnp.zeros((1, *images.shape[-3:]))

  def init(key: chex.PRNGKey) -> tuple[hk.Params, hk.State]:
    return network.init(key, zeros, is_training=True)

  _, shapes = jax.eval_shape(init, jax.random.key(0))
  state = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return jax.jit(lambda key: init(key)[0]), state


def is_of_encoder(module: str) -> bool:
  """Returns whether a module, named as in the parameters, is of the encoder."""
  return module.split("/")[0] not in _HEADS
