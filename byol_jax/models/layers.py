"""Convolutions as Haiku modules, with Haiku's mathematics and names; poolings."""

from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.models import convolution

# big_transfer's (arXiv 1912.11370).
_STANDARDISATION_EPS = 1e-10


class Conv2D(hk.Module):
  """`hk.Conv2D` without bias, for any leading axes."""

  def __init__(
    self,
    channels: int,
    kernel: int,
    stride: int,
    name: str,
    *,
    padding: convolution.Padding = "SAME",
    standardised: bool = False,
  ):
    """Builds the layer.

    Args:
      channels: of the result.
      kernel: rows and columns.
      stride: in both directions.
      name: of the module.
      padding: as for `convolution.conv`.
      standardised: whether to give the weights of each output channel mean 0 and
        variance 1 before use (Qiao et al. 2019, arXiv 1903.10520).
    """
    super().__init__(name=name)
    self._channels = channels
    self._kernel = kernel
    self._stride = stride
    self._padding = padding
    self._standardised = standardised

  def __call__(self, x: chex.Array) -> chex.Array:
    """Convolves [..., H, W, C] to [..., h, w, D]."""
    shape = (self._kernel, self._kernel, x.shape[-1], self._channels)
    stddev = 1 / np.sqrt(np.prod(shape[:-1]))
    w = hk.get_parameter(
      "w", shape, x.dtype, hk.initializers.TruncatedNormal(stddev)
    )
    if self._standardised:
      w = jax.nn.standardize(w, axis=(0, 1, 2), epsilon=_STANDARDISATION_EPS)
    return convolution.conv(x, w, self._stride, self._padding)


class DepthwiseConv2D(hk.Module):
  """`hk.DepthwiseConv2D` of stride 1 with bias, for any leading axes."""

  def __init__(
    self, kernel: int, w_init: hk.initializers.Initializer, name: str
  ):
    """Builds the layer.

    Args:
      kernel: rows and columns, an odd number.
      w_init: initialiser of the kernel.
      name: of the module.
    """
    super().__init__(name=name)
    self._kernel = kernel
    self._w_init = w_init

  def __call__(self, x: chex.Array) -> chex.Array:
    """Convolves each channel of [..., H, W, C] by itself, to the same shape."""
    shape = (self._kernel, self._kernel, 1, x.shape[-1])
    w = hk.get_parameter("w", shape, x.dtype, self._w_init)
    b = hk.get_parameter("b", shape[-1:], x.dtype, jnp.zeros)
    return convolution.depthwise(x, w) + jnp.broadcast_to(b, x.shape)


@jax.custom_vjp
def relu_of_sum(x: chex.Array, y: chex.Array) -> chex.Array:
  """Returns the positive part of x + y, arrays of one shape.

  The derivative looks at the result, which the next layer keeps anyway. That of
  `jax.nn.relu` looks at the sum, which has to be stored, too.
  """
  return jnp.maximum(x + y, 0)


def _relu_of_sum_forward(x, y):
  result = relu_of_sum(x, y)
  return result, result


def _relu_of_sum_backward(result, cotangent):
  passed = jnp.where(result > 0, cotangent, 0)
  return passed, passed


relu_of_sum.defvjp(_relu_of_sum_forward, _relu_of_sum_backward)


def _pool_mean(x: chex.Array) -> chex.Array:
  return jnp.mean(x, axis=(-3, -2))


def _pool_flatten(x: chex.Array) -> chex.Array:
  return x.reshape(*x.shape[:-3], -1)


# From the final feature map, [..., h, w, F], to the embedding.
POOLINGS: dict[str, Callable[[chex.Array], chex.Array]] = {
  "mean": _pool_mean,
  "flatten": _pool_flatten,
}
