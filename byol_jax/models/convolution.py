"""Two-dimensional convolution, computed in the way that suits the device.

On GPUs and TPUs this is `jax.lax.conv_general_dilated`, derivatives included.
On CPUs the same sums are formed in another order, because XLA hands only plain
products and convolutions in one particular layout to fast kernels:

- a 1x1 kernel is a matrix product;
- a 3x3 kernel over many channels is computed by Winograd's minimal filtering;
- with few channels, the input gradient of a stride is composed of convolutions
  without one;
- gradients are written in the layout of the fast kernel, into which XLA itself
  brings convolutions at the top of a program but not in its loops.

No choice changes a result by more than about 4e-6 of its largest value.
"""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

# Rows and columns to pad, before and after.
Pads = tuple[tuple[int, int], ...]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# Input channels from which on products are fast enough that Winograd saves more
# than its transforms cost, and XLA's own strided input gradient, which multiplies
# by zeros, is as fast as ours, which rearranges (benchmarks/README.md).
_MANY_CHANNELS = 64

# Lavin and Gray 2016 (arXiv 1509.09308), F(4, 3) along the rows: four
# neighbouring outputs from six inputs with six products instead of twelve.
_OUTPUTS = 4
_FROM_INPUTS = np.array(
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ]
)
_FROM_KERNEL = np.array(
  [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
  ]
)
_TO_OUTPUTS = np.array(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
  ]
)


def conv(
  x: chex.Array, w: chex.Array, stride: int, padding: str | Pads = "SAME"
) -> chex.Array:
  """Convolves images with a kernel, as `hk.Conv2D` without a bias does.

  Args:
    x: [..., H, W, C].
    w: [rows, columns, C, D].
    stride: of both directions.
    padding: SAME, VALID, or what to add before and after rows and columns.

  Returns:
    [..., h, w, D].
  """
  pads: Pads
  if isinstance(padding, str):
    size = x.shape[-3:-1]
    pads = tuple(
      jax.lax.padtype_to_pads(size, w.shape[:2], (stride, stride), padding)
    )
  else:
    pads = padding
  compute = _cpu_conv if jax.default_backend() == "cpu" else _lax_conv
  y = compute(stride, pads, x.reshape(-1, *x.shape[-3:]), w)
  return y.reshape(*x.shape[:-3], *y.shape[1:])


def _lax_conv(
  stride: int, pads: Pads, x: chex.Array, w: chex.Array, **dilation
) -> chex.Array:
  return jax.lax.conv_general_dilated(
    x, w, (stride, stride), pads, dimension_numbers=_DIMENSIONS, **dilation
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cpu_conv(
  stride: int, pads: Pads, x: chex.Array, w: chex.Array
) -> chex.Array:
  return _forward(stride, pads, x, w)[0]


def _forward(stride, pads, x, w):
  x = _computed_once(x)
  y = _outputs(stride, pads, at_least_float32(x), at_least_float32(w))
  return y.astype(x.dtype), (x, w)


def _backward(stride, pads, residuals, dy):
  dx, dw = _gradients(
    stride, pads, *map(at_least_float32, (*residuals, _computed_once(dy)))
  )
  x, w = residuals
  return dx.astype(x.dtype), dw.astype(w.dtype)


def _gradients(stride, pads, x, w, dy):
  if _is_product(w, pads):
    return jax.vjp(functools.partial(_product, stride), x, w)[1](dy)
  dx = _input_gradient(stride, pads, dy, w, x.shape[1:3])
  if _is_for_winograd(stride, w):
    return dx, _winograd_weight_gradient(pads, x, dy, w.shape)
  return dx, _weight_gradient(stride, pads, x, dy, w.shape)


_cpu_conv.defvjp(_forward, _backward)


def _input_gradient(stride, pads, dy, w, size):
  """The gradient by inputs of that size, as a convolution of `dy`."""
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
  return _lax_conv(1, back, dy, turned, lhs_dilation=(stride, stride))


def at_least_float32(x: chex.Array) -> chex.Array:
  """The array in float32, or wider if it comes so: sums need the digits."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _outputs(stride, pads, x, w):
  if _is_product(w, pads):
    return _product(stride, x, w)
  if _is_for_winograd(stride, w):
    return _winograd(pads, x, w)
  return _lax_conv(stride, pads, x, w)


def _computed_once(x: chex.Array) -> chex.Array:
  """The same array, which XLA stores instead of computing it for each user.

  It repeats cheap element-wise operations, here batch norm and ReLU, inside
  whatever reads them, and what reads the inputs here reads them six times or in
  leaps. Divisions count as dear enough to be done only once, and XLA cannot
  know that this one is by 1. An optimization barrier is gone before it fuses.
  """
  return x / (1 + 0 * x)


def _is_product(w: chex.Array, pads: Pads) -> bool:
  """Whether each output is a product of one input with the kernel."""
  return w.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0))


def _product(stride, x, w):
  x = x[:, ::stride, ::stride]
  # As matrices, so that the weight gradient is a product of matrices, too.
  y = x.reshape(-1, x.shape[-1]) @ w[0, 0]
  return y.reshape(*x.shape[:-1], -1)


def _strided_input_gradient(stride, pads, dy, w, size):
  """The gradient by inputs of that size, without multiplying by zeros.

  Input `stride * q + a` is reached by the kernel's elements `a`, `a + stride`,
  ... only. For each `a` they form a small kernel of stride 1 over `dy`, and all
  of these go as channels of one convolution.
  """
  taps = [-(-n // stride) for n in w.shape[:2]]
  fill = [(0, t * stride - n) for t, n in zip(taps, w.shape[:2], strict=True)]
  w = jnp.pad(w, (*fill, (0, 0), (0, 0)))
  w = w.reshape(taps[0], stride, taps[1], stride, *w.shape[2:])[::-1, :, ::-1]
  w = w.transpose(0, 2, 5, 1, 3, 4).reshape(*taps, dy.shape[-1], -1)
  dx = _lax_conv(1, tuple((t - 1, t - 1) for t in taps), dy, w)
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
  """The gradient by a kernel of that shape, as a convolution over examples."""
  pads = [
    (before, stride * (outputs - 1) + size - before - inputs)
    for (before, _), outputs, size, inputs in zip(
      pads, dy.shape[1:3], shape[:2], x.shape[1:3], strict=True
    )
  ]
  dw = _lax_conv(
    1,
    pads,
    x.transpose(3, 1, 2, 0),
    dy.transpose(1, 2, 0, 3),
    rhs_dilation=(stride, stride),
  )
  return dw.transpose(1, 2, 0, 3)


def _has_many_channels(w: chex.Array) -> bool:
  return w.shape[2] >= _MANY_CHANNELS


def _is_for_winograd(stride: int, w: chex.Array) -> bool:
  return w.shape[1] == 3 and stride == 1 and _has_many_channels(w)


def _winograd(pads, x, w):
  """Convolution of stride 1 with three columns."""
  width = x.shape[2] + sum(pads[1]) - 2
  kernels = _combined(_FROM_KERNEL, jnp.split(w, 3, axis=1))
  products = [
    _lax_conv(1, (pads[0], (0, 0)), a, b)
    for a, b in zip(_winograd_inputs(pads, x), kernels, strict=True)
  ]
  outputs = jnp.stack(_combined(_TO_OUTPUTS, products), axis=3)
  return outputs.reshape(*outputs.shape[:2], -1, w.shape[-1])[:, :, :width]


def _winograd_weight_gradient(pads, x, dy, shape):
  """The gradient of `_winograd` by its kernel."""
  fill = -dy.shape[2] % _OUTPUTS
  dy = jnp.pad(dy, ((0, 0), (0, 0), (0, fill), (0, 0)))
  by_output = [dy[:, :, i::_OUTPUTS] for i in range(_OUTPUTS)]
  by_kernel = [
    _weight_gradient(1, (pads[0], (0, 0)), a, b, (shape[0], 1))
    for a, b in zip(
      _winograd_inputs(pads, x),
      _combined(_TO_OUTPUTS.T, by_output),
      strict=True,
    )
  ]
  return jnp.concatenate(_combined(_FROM_KERNEL.T, by_kernel), axis=1)


def _winograd_inputs(pads, x):
  """Six combinations of columns for every four outputs of a row."""
  _, (before, after) = pads
  width = x.shape[2] + before + after - 2
  last = width - 1 - (width - 1) % _OUTPUTS  # The last group's first output.
  none = (0, 0, 0)
  columns = (before, last + _OUTPUTS + 2 - x.shape[2] - before, 0)
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [none, none, columns, none])
  shifted = [x[:, :, i : i + last + 1 : _OUTPUTS] for i in range(_OUTPUTS + 2)]
  return _combined(_FROM_INPUTS, shifted)


def _combined(
  matrix: np.ndarray, arrays: Sequence[chex.Array]
) -> list[chex.Array]:
  """The sums of arrays that a matrix' rows weigh; nothing is done for a 0."""
  return [
    functools.reduce(
      jnp.add,
      (
        array if weight == 1 else array * weight
        for weight, array in zip(row.tolist(), arrays, strict=True)
        if weight
      ),
    )
    for row in matrix
  ]
