"""Vision Transformers (Dosovitskiy et al. 2020, arXiv 2010.11929).

They are as MoCo v3 pretrains them (Chen et al. 2021, arXiv 2104.02057): with its
initial weights and its fixed sine-cosine positions, so that no parameter depends on
the size of the images. There is no class token: the embedding is pooled from all
positions, which is as accurate (Beyer et al. 2022, arXiv 2205.01580) and gives the
feature map its meaning.
"""

from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import layers, patches
from byol_jax.models.batch_norm import Settings


class Architecture(NamedTuple):
  """The size of a Vision Transformer.

  Attributes:
    module_name: the root of its parameter names.
    channels: of each token, at width 1.
    depth: its blocks.
    head_size: channels of each head of an attention, at any width.
  """

  module_name: str
  channels: int
  depth: int
  head_size: int


# The patch of the paper; that of ViTs on CIFAR (Hassani et al. 2021, arXiv 2104.05704).
PATCHES = {"imagenet": 16, "cifar": 4}
# Hidden values of the MLP for each channel. arXiv 2010.11929, table 1
_MLP_RATIO = 4
# Of the slowest wave of a position, over 2 pi. MoCo v3's code, Vaswani et al. 2017
_LONGEST_WAVE = 10_000.0


def _xavier(matrices: int = 1) -> hk.initializers.Initializer:
  """Returns Xavier's uniform values, for square matrices side by side."""
  # The variance is 2 / (inputs + outputs), with the outputs of one matrix.
  scale = (1 + matrices) / 2
  return hk.initializers.VarianceScaling(scale, "fan_avg", "uniform")


def positions(rows: int, columns: int, channels: int) -> np.ndarray:
  """Returns MoCo v3's two-dimensional sine-cosine positions.

  A quarter of the channels each holds sine and cosine of the row, and sine and cosine
  of the column, for frequencies in a geometric series from 1 down.

  Args:
    rows: of the map.
    columns: of the map.
    channels: a multiple of 4.

  Returns:
    [rows, columns, channels] float32.
  """
  count = channels // 4
  frequencies = _LONGEST_WAVE ** (-np.arange(count) / count)
  found = []
  for places in np.indices((rows, columns)):
    angles = places[..., None] * frequencies
    found += [np.sin(angles), np.cos(angles)]
  return np.concatenate(found, axis=-1).astype(np.float32)


class _Block(hk.Module):
  """Attention and an MLP, each on normalised tokens and added to them."""

  def __init__(self, head_size: int, name: str):
    super().__init__(name=name)
    self._head_size = head_size

  def __call__(self, x: chex.Array) -> chex.Array:
    """Maps tokens, [N, T, C], to the same shape."""
    *outer, size = x.shape
    y = patches.layer_norm(x, "norm_0")
    y = patches.linear(y, 3 * size, _xavier(3), "query_key_value")
    y = y.reshape(*outer, 3, -1, self._head_size)
    y = jax.nn.dot_product_attention(*jnp.moveaxis(y, -3, 0))
    x = x + patches.linear(y.reshape(x.shape), size, _xavier(), "attended")
    y = patches.layer_norm(x, "norm_1")
    y = patches.linear(y, _MLP_RATIO * size, _xavier(), "hidden")
    y = jax.nn.gelu(y, approximate=False)
    return x + patches.linear(y, size, _xavier(), "output")


class ViT(hk.Module):
  """A Vision Transformer without class token and classifier."""

  def __init__(
    self,
    architecture: Architecture,
    config: schema.EncoderConfig,
    bn_settings: Settings,
    remat: bool,
  ):
    """Prepares the layers of a configuration that `check` has passed.

    Args:
      architecture: its size.
      config: width multiplier, patch or stem, pooling.
      bn_settings: not used, as it has no batch norm.
      remat: whether to keep each block's input only and compute the block again
        for its gradient.
    """
    del bn_settings
    super().__init__(name=architecture.module_name)
    self._architecture = architecture
    self._channels = channels_of(architecture, config)
    self._patch = patches.side_of(config, PATCHES)
    self._pool = layers.POOLINGS[config.pooling]
    self._remat = remat

  def __call__(
    self, images: chex.Array, is_training: bool
  ) -> tuple[dict[str, chex.Array], chex.Array]:
    """Returns what `encoders.Builder` asks for."""
    del is_training
    x = patches.split(images, self._patch)
    x = patches.linear(x, self._channels, _xavier(), "patch_embedding")
    shape = x.shape
    x = x + jnp.broadcast_to(positions(*shape[-3:]), shape).astype(x.dtype)
    stages = {"stem": x}
    x = x.reshape(-1, shape[-3] * shape[-2], shape[-1])
    for i in range(self._architecture.depth):
      block = _Block(self._architecture.head_size, name=f"block_{i}")
      x = hk.remat(block)(x) if self._remat else block(x)
      stages[f"block_{i}"] = x.reshape(shape)
    x = patches.layer_norm(x, "final_norm")
    stages["final"] = x = x.reshape(shape)
    return stages, self._pool(x)


def channels_of(
  architecture: Architecture, config: schema.EncoderConfig
) -> int:
  """Returns the channels of each token at the width of a configuration."""
  return round(architecture.channels * config.width)


def check(
  architecture: Architecture,
  config: schema.EncoderConfig,
  image_shape: tuple[int, int],
) -> None:
  """Raises `UserError` if the options do not suit the encoder and its images."""
  patches.check(config, image_shape, PATCHES)
  channels = channels_of(architecture, config)
  head = architecture.head_size
  if not channels or channels % head:
    raise errors.UserError(
      f"model.encoder.width={config.width:g} gives {config.name} {channels}"
      f" channels, which must be a multiple of {head}, those of a head; set it to a"
      f" multiple of {head / architecture.channels:.6g}."
    )
