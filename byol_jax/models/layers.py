"""Convolution as a Haiku module, with Haiku's mathematics and names."""

import chex
import haiku as hk
import jax
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
    on_blocks: bool = False,
    standardised: bool = False,
  ):
    """Builds the layer.

    Args:
      channels: of the result.
      kernel: rows and columns.
      stride: in both directions.
      name: of the module.
      padding: as for `convolution.conv`.
      on_blocks: whether to compute by `convolution.conv_on_blocks`.
      standardised: whether to give the weights of each output channel mean 0 and
        variance 1 before use (Qiao et al. 2019, arXiv 1903.10520).
    """
    super().__init__(name=name)
    self._channels = channels
    self._kernel = kernel
    self._stride = stride
    self._padding = padding
    self._on_blocks = on_blocks
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
    if self._on_blocks:
      return convolution.conv_on_blocks(x, w, self._padding)
    return convolution.conv(x, w, self._stride, self._padding)
