"""Convolution and batch norm: Haiku's mathematics and names, done faster.

A network built of these has the parameters, states and numbers of one built of
`hk.Conv2D` and `hk.BatchNorm`; what differs is how they are computed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.models import convolution
from byol_jax.runtime import devices


class Conv2D(hk.Module):
  """`hk.Conv2D` with SAME padding and no bias, for any leading axes."""

  def __init__(self, channels: int, kernel: int, stride: int, name: str):
    super().__init__(name=name)
    self._channels = channels
    self._kernel = kernel
    self._stride = stride

  def __call__(self, x: chex.Array) -> chex.Array:
    """Convolves [..., H, W, C] to [..., h, w, D]."""
    shape = (self._kernel, self._kernel, x.shape[-1], self._channels)
    stddev = 1 / np.sqrt(np.prod(shape[:-1]))
    w = hk.get_parameter(
      "w", shape, x.dtype, hk.initializers.TruncatedNormal(stddev)
    )
    return convolution.conv(x, w, self._stride)


class BatchNorm(hk.Module):
  """`hk.BatchNorm` with scale and offset, each view by its own statistics.

  Maps [V, B, ..., C] to the same; running statistics take in view after view.
  Computes in float32 whatever the precision of its inputs, which it returns in.
  """

  def __init__(
    self,
    decay_rate: float,
    eps: float,
    axis_name: str | None,
    scale_init: Any = None,
    name: str | None = None,
  ):
    super().__init__(name=name)
    self._eps = eps
    self._axis_name = axis_name
    self._scale_init = scale_init or jnp.ones
    self._mean_ema = hk.ExponentialMovingAverage(decay_rate, name="mean_ema")
    self._var_ema = hk.ExponentialMovingAverage(decay_rate, name="var_ema")

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    """Normalises [V, B, ..., C] by its own, or else by running statistics."""
    shape = (1,) * (x.ndim - 2) + x.shape[-1:]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    scale = hk.get_parameter("scale", shape, dtype, self._scale_init)
    offset = hk.get_parameter("offset", shape, dtype, jnp.zeros)
    if is_training:
      rows = x.reshape(x.shape[0], -1, x.shape[-1])
      y, means, variances = _normalise(
        self._eps,
        self._axis_name,
        rows,
        scale.reshape(1, -1),
        offset.reshape(1, -1),
      )
      for mean, var in zip(means, variances, strict=True):  # View after view.
        self._mean_ema(mean.reshape(shape))
        self._var_ema(var.reshape(shape))
      return y.reshape(x.shape)
    inv = scale * jax.lax.rsqrt(self._var_ema.average + self._eps)
    y = (convolution.at_least_float32(x) - self._mean_ema.average[None]) * inv[
      None
    ] + offset[None]
    return y.astype(x.dtype)


def _column_sums(
  terms: Callable[..., Sequence[chex.Array]], *arrays: chex.Array
) -> chex.Array:
  """Sums over the rows of what `terms` makes of them.

  Sums in float32 at least. Slices are added before the rest is summed: XLA's CPU backend does so at the
  speed of memory and without writing the terms down, which it does not do with
  a sum over all rows.

  Args:
    terms: maps parts of the arrays, [V, n, C] each, to S such.
    *arrays: [V, N, C].

  Returns:
    [S, V, C].
  """
  rows = arrays[0].shape[1]
  parts = next(k for k in (8, 7, 6, 5, 4, 3, 2, 1) if rows % k == 0)
  n = rows // parts
  sums = [
    terms(
      *(
        convolution.at_least_float32(array[:, i * n : (i + 1) * n])
        for array in arrays
      )
    )
    for i in range(parts)
  ]
  return jnp.stack(
    [
      jnp.sum(sum(term[1:], term[0]), axis=1)
      for term in zip(*sums, strict=True)
    ]
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _normalise(eps, axis_name, x, scale, offset):
  """[V, N, C] normalised by each view's mean and variance, and those two.

  Scale and offset are [1, C].

  The derivative is written out: it needs two sums over the rows, where
  differentiating the forward pass needs four. It takes mean and variance, which
  only feed the running statistics, for constants.
  """
  return _normalise_forward(eps, axis_name, x, scale, offset)[0]


def _normalise_forward(eps, axis_name, x, scale, offset):
  means = _column_sums(lambda x: (x, jnp.square(x)), x) / x.shape[1]
  mean, mean_of_squares = devices.mean_over_devices(means, axis_name)
  var = mean_of_squares - jnp.square(mean)
  inv = jax.lax.rsqrt(var + eps)
  y = (convolution.at_least_float32(x) - mean[:, None]) * (scale * inv)[
    :, None
  ] + offset[None]
  return (y.astype(x.dtype), mean, var), (x, scale, mean, inv)


def _normalise_backward(eps, axis_name, residuals, cotangents):
  del eps
  x, scale, mean, inv = residuals
  dy, _, _ = cotangents
  mean = mean[:, None]
  totals = _column_sums(lambda dy, x: (dy, dy * (x - mean)), dy, x)
  d_offset, d_scale = totals[0], totals[1] * inv
  means = jnp.stack([d_offset, d_scale]) / x.shape[1]
  mean_dy, slope = devices.mean_over_devices(means, axis_name)[:, :, None]
  inv = inv[:, None]
  centred = convolution.at_least_float32(x) - mean
  dx = (
    convolution.at_least_float32(dy) - mean_dy - centred * (inv * slope)
  ) * (scale[None] * inv)
  return (
    dx.astype(x.dtype),
    jnp.sum(d_scale, axis=0, keepdims=True),
    jnp.sum(d_offset, axis=0, keepdims=True),
  )


_normalise.defvjp(_normalise_forward, _normalise_backward)
