"""The network of BYOL: encoder, projector, predictor, online classifier."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp

from byol_jax import errors
from byol_jax.models import layers, resnet

# What convolutions and linear layers compute in; None: as the images come. All
# else, parameters, batch-norm statistics and outputs, is float32 anyway.
PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}


class Outputs(NamedTuple):
  """What the network says of a batch of images.

  Attributes:
    embedding: [B, D], the encoder's; what is kept after training.
    projection: [B, P], the target network's side of the loss.
    prediction: [B, P], the online network's side of the loss.
    logits: [B, C], of the online classifier; no gradient reaches the encoder.
  """

  embedding: chex.Array
  projection: chex.Array
  prediction: chex.Array
  logits: chex.Array


class _MLP(hk.Module):
  """Linear, batch norm, ReLU, linear; nothing on the output (paper, 3.2).

  Of other depths, the first three are there once for each layer but the last.
  """

  def __init__(
    self,
    num_layers: int,
    hidden_size: int,
    output_size: int,
    bn_config: Mapping[str, Any],
    name: str,
  ):
    super().__init__(name=name)
    self._num_layers = num_layers
    self._hidden_size = hidden_size
    self._output_size = output_size
    self._bn_config = bn_config

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    for _ in range(self._num_layers - 1):
      x = hk.Linear(self._hidden_size)(x)
      x = layers.BatchNorm(**self._bn_config)(x, is_training)
      x = jax.nn.relu(x)
    return hk.Linear(self._output_size, with_bias=False)(x)


def _per_channel(values: Sequence[float]) -> chex.Array:
  return jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 1, -1)


def make_network(
  *,
  encoder: str,
  width: float = 1.0,
  version: str = "v1",
  stem: str = "imagenet",
  pooling: str = "mean",
  zero_init_last_scale: bool = False,
  projector_layers: int = 2,
  projector_hidden_size: int,
  projector_output_size: int,
  predictor_layers: int = 2,
  predictor_hidden_size: int,
  batch_norm_decay_rate: float,
  batch_norm_eps: float,
  num_classes: int,
  mean: Sequence[float],
  std: Sequence[float],
  precision: str = "float32",
  remat: bool = False,
) -> hk.TransformedWithState:
  """Returns the pure functions `init` and `apply` of the whole network.

  `apply(params, state, images, is_training, axis_name=None)` maps one view,
  [B, H, W, C] in [0, 1], to `Outputs` and the new batch-norm state. With
  `axis_name`, batch statistics are those of all devices on that axis. Several
  views, [V, B, H, W, C], go side by side and keep statistics of their own, as in
  the reference.

  Args:
    encoder: a name in `encoders.ENCODERS`.
    width: see `encoders.ResNet`, as are version, stem, pooling and
      zero_init_last_scale.
    version: v1 or v2.
    stem: imagenet or cifar.
    pooling: mean or flatten.
    zero_init_last_scale: start each residual branch at zero.
    projector_layers: of the projector, linear ones.
    projector_hidden_size: units of the projector's hidden layers.
    projector_output_size: units of projection and prediction.
    predictor_layers: of the predictor, linear ones.
    predictor_hidden_size: units of the predictor's hidden layers.
    batch_norm_decay_rate: of the running statistics used in inference.
    batch_norm_eps: added to variances.
    num_classes: outputs of the online classifier.
    mean: [channels], subtracted from the images' channels.
    std: [channels], the channels are divided by it.
    precision: a name in `PRECISIONS`.
    remat: see `encoders.ResNet`.

  Raises:
    UserError: if a name is unknown.
  """
  resnet.check(encoder, version, stem, pooling)
  if precision not in PRECISIONS:
    raise errors.unknown_name("train.precision", precision, PRECISIONS)

  def forward(
    images: chex.Array, is_training: bool, axis_name: str | None = None
  ) -> Outputs:
    chex.assert_shape(images, (..., None, None, None, len(mean)))
    bn_config = dict(
      decay_rate=batch_norm_decay_rate,
      eps=batch_norm_eps,
      axis_name=axis_name,
    )
    encode = resnet.ResNet(
      resnet.ENCODERS[encoder],
      width=width,
      version=version,
      stem=stem,
      pooling=pooling,
      zero_init_last_scale=zero_init_last_scale,
      bn_config=bn_config,
      remat=remat,
    )
    projector = _MLP(
      projector_layers,
      projector_hidden_size,
      projector_output_size,
      bn_config,
      "projector",
    )
    predictor = _MLP(
      predictor_layers,
      predictor_hidden_size,
      projector_output_size,
      bn_config,
      "predictor",
    )
    classifier = hk.Linear(num_classes, name="classifier")

    outer, dtype = images.shape[:-3], images.dtype
    compute = PRECISIONS[precision] or dtype
    policy = jmp.Policy(
      param_dtype=dtype, compute_dtype=compute, output_dtype=compute
    )
    images = images.reshape(-1, *images.shape[-4:])
    images = (images - _per_channel(mean)) / _per_channel(std)
    with (
      hk.mixed_precision.push_policy(layers.Conv2D, policy),
      hk.mixed_precision.push_policy(hk.Linear, policy),
    ):
      embedding = encode(images, is_training)
      projection = projector(embedding, is_training)
      prediction = predictor(projection, is_training)
      # Labels must not shape the representation that they are to judge.
      logits = classifier(jax.lax.stop_gradient(embedding))
    outputs = Outputs(embedding, projection, prediction, logits)
    return jax.tree.map(
      lambda x: x.reshape(*outer, x.shape[-1]).astype(dtype), outputs
    )

  return hk.without_apply_rng(hk.transform_with_state(forward))


def is_of_encoder(module: str) -> bool:
  """Whether a module, as parameters name it, is kept after training."""
  return module.split("/")[0] not in ("projector", "predictor", "classifier")


def describe(
  network: hk.TransformedWithState, image_shape: Sequence[int]
) -> list[tuple[str, str, str, int]]:
  """Returns what the parts of a network make of a batch; runs nothing.

  Args:
    network: from `make_network`.
    image_shape: of a batch of views, [B, H, W, C].

  Returns:
    Of encoder, projector, predictor and classifier: its module's name, the
    shapes that go in and come out, and the number of its parameters.
  """
  images = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)

  def both(images):
    variables = network.init(jax.random.key(0), images, is_training=True)
    outputs, _ = network.apply(*variables, images, is_training=True)
    return variables[0], outputs

  params, outputs = jax.eval_shape(both, images)
  sizes: dict[str, int] = {}
  for module, arrays in params.items():
    part = module.split("/")[0]
    sizes[part] = sizes.get(part, 0) + sum(a.size for a in arrays.values())
  (encoder,) = filter(is_of_encoder, sizes)
  shapes = {
    encoder: (images, outputs.embedding),
    "projector": (outputs.embedding, outputs.projection),
    "predictor": (outputs.projection, outputs.prediction),
    "classifier": (outputs.embedding, outputs.logits),
  }
  return [
    (part, _shape(before), _shape(after), sizes[part])
    for part, (before, after) in shapes.items()
  ]


def _shape(array: Any) -> str:
  return "x".join(map(str, array.shape))
