"""Convolution in the forms that XLA's CPU backend executes fast.

XLA hands only plain products, and convolutions in one particular layout, to fast
kernels on CPUs. So this module forms the sums of `jax.lax.conv_general_dilated`
and of its derivatives in another order:

- a 1x1 kernel is a matrix product;
- a kernel of three columns over many channels is computed by Winograd's minimal
  filtering;
- with few channels, the input gradient of a strided convolution is composed of
  convolutions without a stride;
- weight gradients are written in the layout of the fast kernel, into which XLA
  itself brings convolutions at the top of a program but not in its loops.

No choice changes a result by more than about 4e-6 of its largest value.
"""

import functools

import chex
import jax
import jax.numpy as jnp

from byol_jax.models import winograd
from byol_jax.models.winograd import Pads

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# From this number of input channels on, products are so fast that Winograd saves
# more than its transforms cost, and XLA's own strided input gradient, which
# multiplies by zeros, is as fast as ours, which rearranges (benchmarks/README.md).
_MANY_CHANNELS = 64


def lax_conv(
  stride: int, pads: Pads, x: chex.Array, w: chex.Array, **dilation
) -> chex.Array:
  """Returns XLA's own convolution of [B, H, W, C] with [rows, columns, C, D]."""
  return jax.lax.conv_general_dilated(
    x, w, (stride, stride), pads, dimension_numbers=_DIMENSIONS, **dilation
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def conv(stride: int, pads: Pads, x: chex.Array, w: chex.Array) -> chex.Array:
  """Returns what `lax_conv` returns, with fast derivatives."""
  return _forward(stride, pads, x, w)[0]


def _forward(stride, pads, x, w):
  x = computed_once(x)
  y = _outputs(stride, pads, at_least_float32(x), at_least_float32(w))
  return y.astype(x.dtype), (x, w)


def _backward(stride, pads, residuals, dy):
  dx, dw = _gradients(
    stride, pads, *map(at_least_float32, (*residuals, computed_once(dy)))
  )
  x, w = residuals
  return dx.astype(x.dtype), dw.astype(w.dtype)


conv.defvjp(_forward, _backward)


def at_least_float32(x: chex.Array) -> chex.Array:
  """Returns the array in float32, or in its own type if that is wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _outputs(stride, pads, x, w):
  if _is_product(w, pads):
    return _product(stride, x, w)
  if _is_for_winograd(stride, w):
    return winograd.outputs(functools.partial(lax_conv, 1), pads, x, w)
  return lax_conv(stride, pads, x, w)


def _gradients(stride, pads, x, w, dy):
  """Returns the gradients by images and kernel."""
  if _is_product(w, pads):
    return jax.vjp(functools.partial(_product, stride), x, w)[1](dy)
  dx = _input_gradient(stride, pads, dy, w, x.shape[1:3])
  if not _is_for_winograd(stride, w):
    return dx, _weight_gradient(stride, pads, x, dy, w.shape)

  def of_column(pads, x, dy):
    return _weight_gradient(1, pads, x, dy, (w.shape[0], 1))

  return dx, winograd.weight_gradient(of_column, pads, x, dy)


def computed_once(x: chex.Array) -> chex.Array:
  """Returns the array in a form that XLA stores instead of computing it again.

  XLA repeats cheap element-wise operations, here batch norm and ReLU, in each
  reader of their result, and convolutions read their input several times or with
  strides. XLA does not repeat a division, and cannot know that this one is by 1.
  It drops an optimization barrier before it fuses.
  """
  return x / (1 + 0 * x)


def _has_many_channels(w: chex.Array) -> bool:
  return w.shape[2] >= _MANY_CHANNELS


def _is_for_winograd(stride: int, w: chex.Array) -> bool:
  is_right_kernel = w.shape[1] == winograd.COLUMNS and stride == 1
  return is_right_kernel and _has_many_channels(w)


def _is_product(w: chex.Array, pads: Pads) -> bool:
  """Returns whether each output is a product of one input with the kernel."""
  return w.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0))


def _product(stride, x, w):
  x = x[:, ::stride, ::stride]
  # As matrices, so that the weight gradient is a product of matrices, too.
  y = x.reshape(-1, x.shape[-1]) @ w[0, 0]
  return y.reshape(*x.shape[:-1], -1)


def _input_gradient(stride, pads, dy, w, size):
  """Returns the gradient by inputs of a size, as a convolution of `dy`."""
  if stride > 1 and not _has_many_channels(w):
    return _strided_input_gradient(stride, pads, dy, w, size)
  turned = w[::-1, ::-1].swapaxes(2, 3)
  back = tuple(
    (size - 1 - before, inputs - stride * (outputs - 1) - 1 + before)
    for size, (before, _), inputs, outputs in zip(
      w.shape[:2], pads, size, dy.shape[1:3], strict=True
    )
  )
  if stride == 1:
    return _outputs(1, back, dy, turned)
  return lax_conv(1, back, dy, turned, lhs_dilation=(stride, stride))


def _strided_input_gradient(stride, pads, dy, w, size):
  """Returns the gradient by inputs of a size without multiplying by zeros.

  Only the kernel's elements `a`, `a + stride`, ... reach input `stride * q + a`.
  For each `a` they form a small kernel of stride 1 over `dy`, and all of these
  kernels are channels of one convolution.
  """
  taps = [-(-n // stride) for n in w.shape[:2]]
  fill = [(0, t * stride - n) for t, n in zip(taps, w.shape[:2], strict=True)]
  w = jnp.pad(w, (*fill, (0, 0), (0, 0)))
  w = w.reshape(taps[0], stride, taps[1], stride, *w.shape[2:])[::-1, :, ::-1]
  w = w.transpose(0, 2, 5, 1, 3, 4).reshape(*taps, dy.shape[-1], -1)
  dx = lax_conv(1, tuple((t - 1, t - 1) for t in taps), dy, w)
  n, rows, columns, _ = dx.shape
  dx = dx.reshape(n, rows, columns, stride, stride, -1).swapaxes(2, 3)
  dx = dx.reshape(n, rows * stride, columns * stride, -1)
  cut = [
    (-before, before + wanted - given, 0)
    for (before, _), wanted, given in zip(
      pads, size, dx.shape[1:3], strict=True
    )
  ]
  return jax.lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *cut, (0, 0, 0)])


def _weight_gradient(stride, pads, x, dy, shape):
  """Returns the gradient by a kernel of a shape, as a convolution of examples."""
  pads = [
    (before, stride * (outputs - 1) + size - before - inputs)
    for (before, _), outputs, size, inputs in zip(
      pads, dy.shape[1:3], shape[:2], x.shape[1:3], strict=True
    )
  ]
  dw = lax_conv(
    1,
    pads,
    x.transpose(3, 1, 2, 0),
    dy.transpose(1, 2, 0, 3),
    rhs_dilation=(stride, stride),
  )
  return dw.transpose(1, 2, 0, 3)
