"""Depthwise convolution in the forms that XLA's CPU backend executes fast.

XLA computes it by slow loops on CPUs, a hundred times slower than memory would let it.
So this module forms the sums of `jax.lax.conv_general_dilated` in another order:

- the results, and the gradient by the images, are a sum of shifted images, one for
  each element of the kernel. XLA adds a row of the kernel in one pass. In one pass
  over all rows it would compile longer and compute the sum again in each reader;
- the gradient by a row of the kernel is a matrix product of columns with columns for
  each channel, of which only the diagonals count. A loop over the rows compiles them
  once.

benchmarks/README.md compares these forms with others.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.models.cpu_convolution import at_least_float32, computed_once


def lax_conv(x: chex.Array, w: chex.Array) -> chex.Array:
  """Returns XLA's own result for [B, H, W, C] and [rows, columns, C]."""
  return jax.lax.conv_general_dilated(
    x,
    w[:, :, None],
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1],
  )


@jax.custom_vjp
def conv(x: chex.Array, w: chex.Array) -> chex.Array:
  """Returns what `lax_conv` returns, with fast derivatives, for odd kernels."""
  return _forward(x, w)[0]


def _forward(x, w):
  y = _outputs(computed_once(x), w)
  return y.astype(x.dtype), (x, w)


def _backward(residuals, dy):
  x, w = residuals
  dy = computed_once(dy)
  dx = _outputs(dy, w[::-1, ::-1])
  dw = _weight_gradient(computed_once(x), dy, w.shape)
  return dx.astype(x.dtype), dw.astype(w.dtype)


conv.defvjp(_forward, _backward)


def _padded(x, shape):
  """Returns images in float32 at least, with zeros around for a kernel's shape."""
  rows, columns = (n // 2 for n in shape[:2])
  around = ((0, 0), (rows, rows), (columns, columns), (0, 0))
  return jnp.pad(at_least_float32(x), around)


def _outputs(x, w):
  _, height, width, _ = x.shape
  x, w = _padded(x, w.shape), at_least_float32(w)
  rows = (
    sum(
      x[:, i : i + height, j : j + width] * w[i, j].reshape(1, 1, 1, -1)
      for j in range(w.shape[1])
    )
    for i in range(w.shape[0])
  )
  return functools.reduce(lambda total, row: computed_once(total) + row, rows)


def _weight_gradient(x, dy, shape):
  _, height, width, _ = dy.shape
  x, dy = _padded(x, shape), at_least_float32(dy)
  # Column `v` of the results takes column `v + j` of the images by element `j`.
  column = np.arange(width)
  shifted = column + np.arange(shape[1])[:, None]

  def row(i: chex.Array) -> chex.Array:
    rows = jax.lax.dynamic_slice_in_dim(x, i, height, axis=1)
    products = jnp.einsum("bhuc,bhvc->cuv", rows, dy)
    return jnp.sum(products[:, shifted, column], axis=-1).T

  return jax.lax.map(row, jnp.arange(shape[0]))
