"""What the encoders that divide an image into patches share."""

import math
from collections.abc import Iterator, Mapping

import chex
import haiku as hk

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import layers
from byol_jax.models.cpu_convolution import at_least_float32

# Of the layer norms of ViT, MoCo v3 and ConvNeXt, in their authors' code.
_EPS = 1e-6
# What only ResNets choose, and what may stand there for others: the default, and the
# norm that they have.
_OF_RESNETS = {
  "version": ("v1",),
  "padding": ("same",),
  "zero_init_last_scale": (False,),
  "norm": ("batch", "layer"),
}


def split(x: chex.Array, side: int) -> chex.Array:
  """Divides maps into squares, whose values become channels.

  Rows and columns at the end that fill no square are left out, as by a convolution of
  PyTorch whose stride is its kernel's size.

  Args:
    x: [..., H, W, C].
    side: of the squares.

  Returns:
    [..., H // side, W // side, side * side * C].
  """
  *outer, height, width, channels = x.shape
  rows, columns = height // side, width // side
  x = x[..., : rows * side, : columns * side, :]
  x = x.reshape(*outer, rows, side, columns, side, channels).swapaxes(-4, -3)
  return x.reshape(*outer, rows, columns, side * side * channels)


def linear(
  x: chex.Array,
  size: int,
  w_init: hk.initializers.Initializer,
  name: str,
) -> chex.Array:
  """Maps [..., C] to [..., size] by a linear layer.

  It is one product of matrices, whose weight gradient XLA computes up to three times
  as fast on CPUs as that of a product with further axes.
  """
  rows = x.reshape(-1, x.shape[-1])
  y = hk.Linear(size, w_init=w_init, name=name)(rows)
  return y.reshape(*x.shape[:-1], size)


def layer_norm(x: chex.Array, name: str) -> chex.Array:
  """Normalises the channels of each position, [..., C], in float32 at least."""
  norm = hk.LayerNorm(-1, True, True, eps=_EPS, name=name)
  return norm(at_least_float32(x)).astype(x.dtype)


def side_of(config: schema.EncoderConfig, of_stem: Mapping[str, int]) -> int:
  """Returns the side of a patch in pixels; `of_stem` has what a stem stands for."""
  return config.patch or of_stem[config.stem]


def check(
  config: schema.EncoderConfig,
  image_shape: tuple[int, int],
  of_stem: Mapping[str, int],
) -> None:
  """Raises `UserError` for options that suit no encoder of patches.

  Args:
    config: of the encoder.
    image_shape: height and width of the images.
    of_stem: see `side_of`.
  """
  for key, known in (("stem", of_stem), ("pooling", layers.POOLINGS)):
    value = getattr(config, key)
    if value not in known:
      raise errors.unknown_name(f"model.encoder.{key}", value, known)
  for key, fitting in _OF_RESNETS.items():
    value = getattr(config, key)
    if value not in fitting:
      raise errors.UserError(
        f"model.encoder.{key}={value} is an option of ResNets; leave it at"
        f" {fitting[0]} for {config.name}."
      )
  side = side_of(config, of_stem)
  common = math.gcd(*image_shape)
  for key, length in lengths(image_shape):
    if length % side:
      sides = (n for n in range(1, common + 1) if common % n == 0)
      raise errors.UserError(
        f"{key}={length} must be a multiple of {side}, the side of the patches of"
        f" {config.name}; set model.encoder.patch to one of"
        f" {', '.join(map(str, sides))}, or another image size."
      )


def lengths(image_shape: tuple[int, int]) -> Iterator[tuple[str, int]]:
  """Yields height and width of the images, each after the key that sets it."""
  yield from zip(
    ("data.image_size", "data.image_width"), image_shape, strict=True
  )
