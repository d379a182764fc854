"""ResNet encoders, with the reference's parameter tree.

Module and parameter names, shapes and the order of random numbers are those of
deepmind-research/byol/utils/networks.py, so that its checkpoints load as they are.
Haiku's own residual blocks are not used: their first version always starts the
last scale of a bottleneck block at zero, which the paper did not.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import convolution, layers, norms, pooling
from byol_jax.models.batch_norm import Settings


class Architecture(NamedTuple):
  """The depth and width of a ResNet.

  Attributes:
    module_name: the root of its parameter names.
    blocks: residual blocks in each of the four groups.
    channels: output channels of each group at width 1.
    bottleneck: whether a block is 1x1-3x3-1x1 rather than 3x3-3x3.
  """

  module_name: str
  blocks: Sequence[int]
  channels: Sequence[int]
  bottleneck: bool


class Layers(NamedTuple):
  """What all parts of a ResNet are made of.

  Attributes:
    conv: makes a convolution from (channels, kernel, stride, name), and `on_blocks` of
      `layers.Conv2D`.
    norm: makes a norm from (scale_init=None, name=None). Names are the reference's,
      whatever the norm.
  """

  conv: Callable[..., layers.Conv2D]
  norm: Callable[..., norms.Norm]


# By name: kernel, stride, and whether a 3x3 max-pool of stride 2 follows.
_STEMS = {"imagenet": (7, 2, True), "cifar": (3, 1, False)}
_STEM_CHANNELS = 64
# By name: the padding of a kernel of some size.
_PADDINGS: dict[str, Callable[[int], convolution.Padding]] = {
  "same": lambda kernel: "SAME",
  "torch": convolution.symmetric,
}


class _Block(hk.Module):
  """The layers and the shortcut of a residual block, not yet in an order."""

  def __init__(
    self,
    channels: int,
    stride: int,
    bottleneck: bool,
    project: bool,
    last_scale_init: Any,
    made_of: Layers,
    name: str,
  ):
    super().__init__(name=name)
    if bottleneck:
      convs = [
        (channels // 4, 1, 1),
        (channels // 4, 3, stride),
        (channels, 1, 1),
      ]
    else:
      convs = [(channels, 3, stride), (channels, 3, 1)]
    self.shortcut_conv = None
    if project:
      self.shortcut_conv = made_of.conv(channels, 1, stride, "shortcut_conv")
    self.layers = []
    for i, (size, kernel, conv_stride) in enumerate(convs):
      is_last = i == len(convs) - 1
      norm = made_of.norm(
        scale_init=last_scale_init if is_last else None,
        name=f"batchnorm_{i}",
      )
      conv = made_of.conv(size, kernel, conv_stride, f"conv_{i}")
      self.layers.append((conv, norm))


class _BlockV1(_Block):
  """Convolution, norm, ReLU; the last ReLU follows the addition."""

  def __init__(self, *, made_of: Layers, **kwargs):
    super().__init__(made_of=made_of, **kwargs)
    if self.shortcut_conv is not None:
      self.shortcut_norm = made_of.norm(name="shortcut_batchnorm")

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    shortcut = x
    if self.shortcut_conv is not None:
      shortcut = self.shortcut_norm(self.shortcut_conv(x), is_training)
    for i, (conv, norm) in enumerate(self.layers):
      x = norm(conv(x), is_training)
      if i < len(self.layers) - 1:
        x = jax.nn.relu(x)
    return layers.relu_of_sum(x, shortcut)


class _BlockV2(_Block):
  """Norm, ReLU, convolution; nothing follows the addition."""

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    shortcut = x
    for i, (conv, norm) in enumerate(self.layers):
      x = jax.nn.relu(norm(x, is_training))
      if i == 0 and self.shortcut_conv is not None:
        shortcut = self.shortcut_conv(x)
      x = conv(x)
    return x + shortcut


_BLOCKS = {"v1": _BlockV1, "v2": _BlockV2}


class _BlockGroup(hk.Module):
  """Blocks of one resolution, of which the first strides and projects."""

  def __init__(
    self,
    block: type,
    num_blocks: int,
    stride: int,
    remat: bool,
    name: str,
    **kwargs,
  ):
    super().__init__(name=name)
    self.remat = remat
    self.blocks = [
      block(
        stride=stride if i == 0 else 1,
        project=i == 0,
        name=f"block_{i}",
        **kwargs,
      )
      for i in range(num_blocks)
    ]

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    for block in self.blocks:
      call = functools.partial(block, is_training=is_training)
      x = hk.remat(call)(x) if self.remat else call(x)
    return x


class ResNet(hk.Module):
  """A ResNet without its classifier: images to feature maps and embeddings."""

  def __init__(
    self,
    architecture: Architecture,
    config: schema.EncoderConfig,
    bn_settings: Settings,
    remat: bool,
  ):
    """Builds the layers of a configuration that `check` has passed.

    Args:
      architecture: its depth and width.
      config: width multiplier, version, stem, padding, pooling, norm, initial scales.
      bn_settings: how every batch norm works.
      remat: whether to keep each block's input only and compute the block again
        for its gradient, which takes less memory and a third more work.
    """
    super().__init__(name=architecture.module_name)
    kernel, stride, self.max_pool = _STEMS[config.stem]
    self.padding = config.padding
    self.version = config.version
    self.pool = layers.POOLINGS[config.pooling]
    scale_init = jnp.zeros if config.zero_init_last_scale else None
    made_of = _layers(config, bn_settings)
    self.initial_conv = made_of.conv(
      scaled(_STEM_CHANNELS, config.width),
      kernel,
      stride,
      "initial_conv",
    )
    if config.version == "v1":
      self.initial_norm = made_of.norm(name="initial_batchnorm")
    self.groups = [
      _BlockGroup(
        _BLOCKS[config.version],
        num_blocks=architecture.blocks[i],
        stride=1 if i == 0 else 2,
        channels=scaled(architecture.channels[i], config.width),
        bottleneck=architecture.bottleneck,
        last_scale_init=scale_init,
        made_of=made_of,
        remat=remat,
        name=f"block_group_{i}",
      )
      for i in range(4)
    ]
    if config.version == "v2":
      self.final_norm = made_of.norm(name="final_batchnorm")

  def __call__(
    self, images: chex.Array, is_training: bool
  ) -> tuple[dict[str, chex.Array], chex.Array]:
    """Returns what `encoders.Builder` asks for."""
    stages = {}
    x = self.initial_conv(images)
    if self.version == "v1":
      x = jax.nn.relu(self.initial_norm(x, is_training))
    if self.max_pool:
      x = pooling.max_pool(x, _PADDINGS[self.padding](3))
    stages["stem"] = x
    for i, group in enumerate(self.groups):
      stages[f"group_{i}"] = x = group(x, is_training)
    if self.version == "v2":
      x = jax.nn.relu(self.final_norm(x, is_training))
    stages["final"] = x
    return stages, self.pool(x)


def _layers(config: schema.EncoderConfig, bn_settings: Settings) -> Layers:
  """Returns what a configuration makes all parts of."""

  def conv(
    channels: int, kernel: int, stride: int, name: str, **kwargs: Any
  ) -> layers.Conv2D:
    return layers.Conv2D(
      channels,
      kernel,
      stride,
      name,
      padding=_PADDINGS[config.padding](kernel),
      # As in Richemond et al. 2020 (arXiv 2010.10241).
      standardised=config.norm == "group",
      **kwargs,
    )

  norm = functools.partial(norms.NORMS[config.norm], bn_settings)
  return Layers(conv, norm)


def scaled(channels: int, width: float) -> int:
  """Returns the channels at a width multiplier, at least 4 for a bottleneck."""
  return max(4, round(channels * width))


def check(config: schema.EncoderConfig, image_shape: tuple[int, int]) -> None:
  """Raises `UserError` if the options do not suit a ResNet, which takes any images."""
  del image_shape
  for key, value, known in (
    ("version", config.version, _BLOCKS),
    ("stem", config.stem, _STEMS),
    ("padding", config.padding, _PADDINGS),
    ("pooling", config.pooling, layers.POOLINGS),
    ("norm", config.norm, norms.NORMS),
  ):
    if value not in known:
      raise errors.unknown_name(f"model.encoder.{key}", value, known)
  if config.patch:
    raise errors.UserError(
      f"model.encoder.patch={config.patch} is an option of ViTs and ConvNeXts; leave"
      f" it at 0 for {config.name}."
    )
