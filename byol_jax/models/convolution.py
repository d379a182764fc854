"""Two-dimensional convolution, computed in the way that suits the platform."""

import chex
import jax
import jax.numpy as jnp

from byol_jax.models import cpu_convolution, cpu_depthwise
from byol_jax.runtime import platforms

# SAME, VALID, or what to add before and after rows and columns.
Padding = str | cpu_convolution.Pads

_KERNEL_ON_BLOCKS = 7  # Of an ImageNet stem; no other layer has it.


def symmetric(kernel: int) -> cpu_convolution.Pads:
  """Returns the padding of PyTorch's ResNets: as much before as after.

  It gives results of the same size as SAME, which adds the smaller half before.

  Args:
    kernel: rows and columns, an odd number.
  """
  return ((kernel // 2, kernel // 2),) * 2


def pixels_around(
  size: tuple[int, int], kernel: int, stride: int, padding: Padding
) -> cpu_convolution.Pads:
  """Returns how many rows and columns a padding adds before and after an image.

  Args:
    size: rows and columns of the image.
    kernel: rows and columns of what moves over it.
    stride: in both directions.
    padding: see `Padding`.
  """
  if not isinstance(padding, str):
    return padding
  rows, columns = jax.lax.padtype_to_pads(
    size, (kernel, kernel), (stride, stride), padding
  )
  return rows, columns


def conv_on_blocks(
  x: chex.Array, w: chex.Array, padding: Padding = "SAME"
) -> chex.Array:
  """Computes `conv(x, w, 2, padding)` with stride 1 on blocks of 2x2 pixels.

  The blocks become channels, so a kernel of 7x7 pixels becomes one of 4x4 blocks.
  Matrix units are filled better by 12 channels than by 3.

  Args:
    x: [..., H, W, C]; H and W are even.
    w: [7, 7, C, D].
    padding: SAME or `symmetric(7)`.

  Returns:
    [..., H / 2, W / 2, D].
  """
  *outer, height, width, channels = x.shape
  blocks = x.reshape(-1, height // 2, 2, width // 2, 2, channels)
  blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
  blocks = blocks.reshape(-1, height // 2, width // 2, 4 * channels)
  # SAME begins two pixels, one block, before the image; the last row of the eight
  # that four blocks span is beyond the kernel. Symmetric padding begins three
  # pixels before, so of two blocks the first row is beyond the kernel.
  is_same = padding == "SAME"
  beyond, blocks_around = ((0, 1), (1, 2)) if is_same else ((1, 0), (2, 1))
  kernel = jnp.pad(w, (beyond, beyond, (0, 0), (0, 0)))
  kernel = kernel.reshape(4, 2, 4, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(4, 4, 4 * channels, -1)
  y = conv(blocks, kernel, 1, (blocks_around, blocks_around))
  return y.reshape(*outer, *y.shape[1:])


def conv(
  x: chex.Array,
  w: chex.Array,
  stride: int,
  padding: Padding = "SAME",
) -> chex.Array:
  """Convolves images with a kernel, as `hk.Conv2D` without a bias does.

  GPUs and TPUs run `jax.lax.conv_general_dilated`, on the stem of a ResNet by
  `conv_on_blocks`. CPUs run the same sums in another order, see `cpu_convolution`.

  Args:
    x: [..., H, W, C].
    w: [rows, columns, C, D].
    stride: in both directions.
    padding: see `Padding`.

  Returns:
    [..., h, w, D].
  """
  if (
    w.shape[0] == _KERNEL_ON_BLOCKS
    and stride == 2
    and padding in ("SAME", symmetric(_KERNEL_ON_BLOCKS))
    and not any(side % 2 for side in x.shape[-3:-1])
    and platforms.takes_form("convolution on blocks")
  ):
    return conv_on_blocks(x, w, padding)
  pads = pixels_around(x.shape[-3:-1], w.shape[0], stride, padding)
  on_cpu = platforms.takes_form("convolution")
  compute = cpu_convolution.conv if on_cpu else cpu_convolution.lax_conv
  y = compute(stride, pads, x.reshape(-1, *x.shape[-3:]), w)
  return y.reshape(*x.shape[:-3], *y.shape[1:])


def depthwise(x: chex.Array, w: chex.Array) -> chex.Array:
  """Convolves each channel by itself, with stride 1 and padding SAME.

  GPUs and TPUs run `jax.lax.conv_general_dilated`. CPUs run the same sums in
  another order, see `cpu_depthwise`.

  Args:
    x: [..., H, W, C].
    w: [rows, columns, 1, C], with an odd number of rows and columns.

  Returns:
    [..., H, W, C].
  """
  on_cpu = platforms.takes_form("depthwise convolution")
  compute = cpu_depthwise.conv if on_cpu else cpu_depthwise.lax_conv
  return compute(x.reshape(-1, *x.shape[-3:]), w[:, :, 0]).reshape(x.shape)
