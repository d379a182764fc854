"""Batch norm as Haiku's, for several views side by side, with a fast derivative."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.models.cpu_convolution import at_least_float32
from byol_jax.runtime import devices, platforms

# Rows for which sums in two stages pay: the columns of fewer rows are short, and XLA
# divides more rows itself (seen with JAX 0.11 on an H200).
_FEWEST, _MOST = 512, 16384


class Settings(NamedTuple):
  """How statistics are made and used.

  Attributes:
    decay_rate: of the running statistics.
    eps: added to variances.
    axis_name: devices that share statistics; None for each by itself.
    group_size: neighbouring devices of the axis that share statistics; 0 for all.
    in_own_type: whether values are normalised in the type of the input instead of
      float32. Statistics, and sums of the derivative, are float32 anyway.
  """

  decay_rate: float
  eps: float
  axis_name: str | None = None
  group_size: int = 0
  in_own_type: bool = False


class BatchNorm(hk.Module):
  """`hk.BatchNorm` with scale and offset, each view by its own statistics.

  Maps [V, B, ..., C] to the same. Running statistics take in one view after the
  other. All sums are in float32 at least; the output has the input's type.
  """

  def __init__(
    self,
    settings: Settings,
    scale_init: Any = None,
    name: str | None = None,
  ):
    """Builds the layer.

    Args:
      settings: how statistics are made and used.
      scale_init: initialiser of the scale; by default ones.
      name: of the module.
    """
    super().__init__(name=name)
    self._settings = settings
    self._scale_init = scale_init or jnp.ones
    rate = settings.decay_rate
    self._mean_ema = hk.ExponentialMovingAverage(rate, name="mean_ema")
    self._var_ema = hk.ExponentialMovingAverage(rate, name="var_ema")

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    """Normalises [V, B, ..., C] by batch statistics, or by running ones."""
    shape = (1,) * (x.ndim - 2) + x.shape[-1:]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    scale = hk.get_parameter("scale", shape, dtype, self._scale_init)
    offset = hk.get_parameter("offset", shape, dtype, jnp.zeros)
    if is_training:
      rows = x.reshape(x.shape[0], -1, x.shape[-1])
      y, means, variances = _normalise(
        self._settings, rows, scale.reshape(1, -1), offset.reshape(1, -1)
      )
      if self._settings.group_size:  # All devices hold the same state.
        means, variances = devices.mean_over_devices(
          (means, variances), self._settings.axis_name
        )
      for mean, var in zip(means, variances, strict=True):
        self._mean_ema(mean.reshape(shape))
        self._var_ema(var.reshape(shape))
      return y.reshape(x.shape)
    inv = scale * jax.lax.rsqrt(self._var_ema.average + self._settings.eps)
    centred = at_least_float32(x) - self._mean_ema.average[None]
    return (centred * inv[None] + offset[None]).astype(x.dtype)


def _column_sums(
  terms: Callable[..., Sequence[chex.Array]], *arrays: chex.Array
) -> chex.Array:
  """Sums terms over the rows, in float32 at least.

  On CPUs the rows are added slice to slice before the rest is summed: XLA does that
  at the speed of memory and without storing the terms, which it does not achieve
  with a sum over all rows. On GPUs, groups of rows are summed before the groups are.

  Args:
    terms: maps parts of the arrays, [V, n, C] each, to S arrays of the same shape.
    *arrays: [V, N, C].

  Returns:
    [S, V, C].
  """
  rows, parts = arrays[0].shape[1], 1
  if platforms.takes_form("column sums in slices"):
    parts = next(k for k in (8, 7, 6, 5, 4, 3, 2, 1) if rows % k == 0)
  n = rows // parts
  sums = [
    terms(
      *(at_least_float32(array[:, i * n : (i + 1) * n]) for array in arrays)
    )
    for i in range(parts)
  ]
  totals = [sum(term[1:], term[0]) for term in zip(*sums, strict=True)]
  if _FEWEST <= rows < _MOST and platforms.takes_form(
    "column sums in two stages"
  ):
    # Without the barrier, XLA makes one sum of the two.
    totals = jax.lax.optimization_barrier(
      [jnp.sum(_split(term), axis=2) for term in totals]
    )
  return jnp.stack([jnp.sum(term, axis=1) for term in totals])


def _split(term: chex.Array) -> chex.Array:
  """Reshapes [V, N, C] to [V, parts, n, C], with n near the root of N."""
  views, rows, channels = term.shape
  n = max(k for k in range(1, math.isqrt(rows) + 1) if rows % k == 0)
  return term.reshape(views, rows // n, n, channels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(settings, x, scale, offset):
  """Returns [V, N, C] normalised per view, and the means and variances used.

  Scale and offset are [1, C].

  The derivative is written out: it needs two sums over the rows, while
  differentiating the forward pass needs four. It treats mean and variance, which
  only feed the running statistics, as constants.
  """
  return _normalise_forward(settings, x, scale, offset)[0]


def _normalise_forward(settings, x, scale, offset):
  sums = _column_sums(lambda x: (x, jnp.square(x)), x)
  mean, mean_of_squares = _mean_over_group(settings, sums / x.shape[1])
  var = mean_of_squares - jnp.square(mean)
  inv = jax.lax.rsqrt(var + settings.eps)
  dtype = _type_to_compute_in(settings, x)
  factor = (scale * inv).astype(dtype)
  y = (x.astype(dtype) - mean.astype(dtype)[:, None]) * factor[:, None]
  y = y + offset.astype(dtype)[None]
  return (y.astype(x.dtype), mean, var), (x, scale, mean, inv)


def _normalise_backward(settings, residuals, cotangents):
  x, scale, mean, inv = residuals
  dy, _, _ = cotangents
  mean = mean[:, None]
  totals = _column_sums(lambda dy, x: (dy, dy * (x - mean)), dy, x)
  d_offset, d_scale = totals[0], totals[1] * inv
  means = jnp.stack([d_offset, d_scale]) / x.shape[1]
  mean_dy, slope = _mean_over_group(settings, means)[:, :, None]
  inv = inv[:, None]
  dtype = _type_to_compute_in(settings, x)
  centred = x.astype(dtype) - mean.astype(dtype)
  dx = dy.astype(dtype) - mean_dy.astype(dtype)
  dx = dx - centred * (inv * slope).astype(dtype)
  dx = dx * (scale[None] * inv).astype(dtype)
  return (
    dx.astype(x.dtype),
    jnp.sum(d_scale, axis=0, keepdims=True),
    jnp.sum(d_offset, axis=0, keepdims=True),
  )


_normalise.defvjp(_normalise_forward, _normalise_backward)


def _mean_over_group(settings, values):
  return devices.mean_over_devices(
    values, settings.axis_name, settings.group_size
  )


def _type_to_compute_in(settings, x):
  return x.dtype if settings.in_own_type else at_least_float32(x).dtype
