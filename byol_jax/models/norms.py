"""The layers that normalise activations, by name."""

import math
from collections.abc import Callable
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.models.batch_norm import BatchNorm, Settings
from byol_jax.models.cpu_convolution import at_least_float32

Norm = Callable[[chex.Array, bool], chex.Array]  # Also takes `is_training`.

# Channels in a group, as in one of Wu and He's two settings (arXiv 1803.08494). Their
# other one, 32 groups, leaves one value in a group of few channels and one position,
# and normalising that value would give 0.
_CHANNELS = 16


class GroupNorm(hk.Module):
  """Normalises each image by itself, over positions and groups of channels.

  Maps [V, B, ..., C] to the same, with scale and offset. Statistics are in float32 at
  least; the output has the input's type.
  """

  def __init__(
    self,
    channels: int | None,
    eps: float,
    scale_init: Any,
    name: str | None,
  ):
    """Builds the layer.

    Args:
      channels: in a group, or the largest divisor that it shares with the number of
        channels; None for all channels.
      eps: added to variances.
      scale_init: initialiser of the scale; by default ones.
      name: of the module.
    """
    super().__init__(name=name)
    self._channels = channels
    self._eps = eps
    self._scale_init = scale_init or jnp.ones

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    """Normalises [V, B, ..., C] in the same way in training and inference."""
    del is_training
    y = at_least_float32(x)
    shape = (1,) * (x.ndim - 2) + x.shape[-1:]
    scale = hk.get_parameter("scale", shape, y.dtype, self._scale_init)
    offset = hk.get_parameter("offset", shape, y.dtype, jnp.zeros)
    channels = math.gcd(self._channels or x.shape[-1], x.shape[-1])
    y = y.reshape(*x.shape[:-1], -1, channels)
    axes = (*range(2, x.ndim - 1), -1)
    y = jax.nn.standardize(y, axis=axes, epsilon=self._eps).reshape(x.shape)
    return (y * scale[None] + offset[None]).astype(x.dtype)


def _batch(
  settings: Settings, scale_init: Any = None, name: str | None = None
) -> Norm:
  return BatchNorm(settings, scale_init, name)


def _group(
  settings: Settings, scale_init: Any = None, name: str | None = None
) -> Norm:
  return GroupNorm(_CHANNELS, settings.eps, scale_init, name)


def _layer(
  settings: Settings, scale_init: Any = None, name: str | None = None
) -> Norm:
  return GroupNorm(None, settings.eps, scale_init, name or "layer_norm")


def _none(
  settings: Settings, scale_init: Any = None, name: str | None = None
) -> Norm:
  del settings, scale_init, name
  return lambda x, is_training: x


# `learning.optimizers.exclude_bias_and_norm` knows a norm by "norm" in its name.
NORMS: dict[str, Callable[..., Norm]] = {
  "batch": _batch,
  "group": _group,
  "layer": _layer,
  "none": _none,
}
