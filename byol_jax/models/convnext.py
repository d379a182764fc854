"""ConvNeXts (Liu et al. 2022, arXiv 2201.03545).

Other than there, the last layer norm comes before the pooling, so that the embedding
is pooled from the feature map; it has the same parameters. There is no stochastic
depth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import layers, patches
from byol_jax.models.batch_norm import Settings


class Architecture(NamedTuple):
  """The depth and width of a ConvNeXt.

  Attributes:
    module_name: the root of its parameter names.
    blocks: of each of the four groups.
    channels: of the first group at width 1; each later group doubles them.
  """

  module_name: str
  blocks: Sequence[int]
  channels: int


# The patch of the paper; its half, as the paper's leaves 1x1 of 32 pixels (our choice).
PATCHES = {"imagenet": 4, "cifar": 2}
# The size of a depthwise kernel, hidden values of the MLP for each channel, the first
# scale of a residual branch, and the deviation of initial weights. The authors' code
_KERNEL = 7
_MLP_RATIO = 4
_FIRST_SCALE = 1e-6
_INIT = hk.initializers.TruncatedNormal(0.02)


class _Block(hk.Module):
  """A depthwise convolution, then an MLP at each position, scaled and added."""

  def __call__(self, x: chex.Array) -> chex.Array:
    """Maps [V, B, h, w, C] to the same shape."""
    size = x.shape[-1]
    y = layers.DepthwiseConv2D(_KERNEL, _INIT, name="depthwise")(x)
    y = patches.layer_norm(y, "norm")
    y = patches.linear(y, _MLP_RATIO * size, _INIT, "hidden")
    y = jax.nn.gelu(y, approximate=False)
    y = patches.linear(y, size, _INIT, "output")
    scale = hk.get_parameter(
      "scale", (size,), jnp.float32, hk.initializers.Constant(_FIRST_SCALE)
    )
    return x + jnp.broadcast_to(scale, y.shape).astype(y.dtype) * y


class ConvNeXt(hk.Module):
  """A ConvNeXt without its classifier."""

  def __init__(
    self,
    architecture: Architecture,
    config: schema.EncoderConfig,
    bn_settings: Settings,
    remat: bool,
  ):
    """Prepares the layers of a configuration that `check` has passed.

    Args:
      architecture: its depth and width.
      config: width multiplier, patch or stem, pooling.
      bn_settings: not used, as it has no batch norm.
      remat: whether to keep each block's input only and compute the block again
        for its gradient.
    """
    del bn_settings
    super().__init__(name=architecture.module_name)
    self._blocks = architecture.blocks
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
    x = patches.linear(x, self._channels, _INIT, "stem")
    x = patches.layer_norm(x, "stem_norm")
    stages = {"stem": x}
    for i, count in enumerate(self._blocks):
      if i > 0:
        x = patches.split(patches.layer_norm(x, f"downsample_norm_{i}"), 2)
        size = self._channels * 2**i
        x = patches.linear(x, size, _INIT, f"downsample_{i}")
      for j in range(count):
        block = _Block(name=f"block_{i}_{j}")
        x = hk.remat(block)(x) if self._remat else block(x)
      stages[f"group_{i}"] = x
    stages["final"] = x = patches.layer_norm(x, "final_norm")
    return stages, self._pool(x)


def channels_of(
  architecture: Architecture, config: schema.EncoderConfig
) -> int:
  """Returns the channels of the first group at the width of a configuration."""
  return max(1, round(architecture.channels * config.width))


def check(config: schema.EncoderConfig, image_shape: tuple[int, int]) -> None:
  """Raises `UserError` if the options do not suit the encoder and its images."""
  patches.check(config, image_shape, PATCHES)
  side = patches.side_of(config, PATCHES)
  least = side * 2**3  # Three groups halve the map.
  for key, length in patches.lengths(image_shape):
    if length < least:
      raise errors.UserError(
        f"{key}={length} must be at least {least} for {config.name} with patches of"
        f" {side}; set a smaller model.encoder.patch or a larger image size."
      )
