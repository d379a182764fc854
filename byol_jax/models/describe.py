"""The parts of a network with their shapes and sizes, for people."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.models import networks


class Part(NamedTuple):
  """A part of a network.

  Attributes:
    name: of its module.
    input_shape: such as 32x28x28x3.
    output_shape: such as 32x512.
    parameters: their number.
  """

  name: str
  input_shape: str
  output_shape: str
  parameters: int


def describe(
  network: hk.TransformedWithState, image_shape: Sequence[int]
) -> list[Part]:
  """Returns encoder, projector, predictor and classifier; runs no network.

  Args:
    network: from `networks.make_network`.
    image_shape: of a batch of views, [B, H, W, C].
  """
  batch_size, *of_one = image_shape
  # A single image is traced, since some counts of a large batch exceed int32.
  images = jax.ShapeDtypeStruct((1, *of_one), jnp.float32)

  def init_and_apply(images):
    variables = network.init(jax.random.key(0), images, is_training=True)
    outputs, _ = network.apply(*variables, images, is_training=True)
    return variables[0], outputs

  params, outputs = jax.eval_shape(init_and_apply, images)
  sizes: dict[str, int] = {}
  for module, arrays in params.items():
    part = module.split("/")[0]
    sizes[part] = sizes.get(part, 0) + sum(a.size for a in arrays.values())
  (encoder,) = filter(networks.is_of_encoder, sizes)
  shapes = {
    encoder: (images, outputs.embedding),
    "projector": (outputs.embedding, outputs.projection),
    "predictor": (outputs.projection, outputs.prediction),
    "classifier": (outputs.embedding, outputs.logits),
  }
  return [
    Part(
      part,
      _text(batch_size, before),
      _text(batch_size, after),
      sizes.get(part, 0),  # Some predictors have no parameters.
    )
    for part, (before, after) in shapes.items()
  ]


def _text(batch_size: int, array: Any) -> str:
  return "x".join(map(str, (batch_size, *array.shape[1:])))
