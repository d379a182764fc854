"""Maxima and their derivative are those of XLA's own window operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.models import convolution, layers, pooling

SAME, TORCH = "SAME", convolution.symmetric(3)


def xlas(x, padding):
  pads = convolution.pixels_around(x.shape[-3:-1], 3, 2, padding)
  outer = [(0, 0)] * (x.ndim - 3)
  window, strides = ((*[1] * (x.ndim - 3), n, n, 1) for n in (3, 2))
  return jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, window, strides, [*outer, *pads, (0, 0)]
  )


@pytest.mark.parametrize("padding", [SAME, TORCH])
@pytest.mark.parametrize(
  "shape", [(2, 3, 8, 8, 5), (7, 9, 2), (2, 12, 5, 1), (1, 1, 2, 3)]
)
def test_maxima_and_derivatives_are_xlas(shape, padding):
  random = np.random.RandomState(0)
  # Few different values, so that windows have several maxima, and many zeros.
  x = np.maximum(random.randint(-4, 5, shape), 0).astype(np.float32)
  expected, derivative = jax.vjp(lambda x: xlas(x, padding), x)
  y, own_derivative = jax.vjp(lambda x: pooling.max_pool(x, padding), x)
  np.testing.assert_array_equal(y, expected)
  # Sums of whole numbers have no rounding errors.
  dy = random.randint(-9, 10, y.shape).astype(np.float32)
  np.testing.assert_array_equal(own_derivative(dy)[0], derivative(dy)[0])


def test_types_are_kept():
  x = jnp.ones((4, 4, 2), jnp.bfloat16)
  y, derivative = jax.vjp(pooling.max_pool, x)
  assert y.dtype == derivative(y)[0].dtype == jnp.bfloat16


def test_the_positive_part_of_a_sum_is_jaxs():
  random = np.random.RandomState(0)
  x, y, cotangent = random.randint(-3, 4, (3, 40)).astype(np.float32)
  expected, derivative = jax.vjp(lambda x, y: jax.nn.relu(x + y), x, y)
  found, own_derivative = jax.vjp(layers.relu_of_sum, x, y)
  np.testing.assert_array_equal(found, expected)
  for a, b in zip(
    own_derivative(cotangent), derivative(cotangent), strict=True
  ):
    np.testing.assert_array_equal(a, b)
