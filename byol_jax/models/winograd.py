"""Convolution of stride 1 with three columns by Winograd's minimal filtering.

Lavin and Gray 2016 (arXiv 1509.09308), F(4, 3) along the rows: four neighbouring
outputs come from six inputs with six products instead of twelve. The products are
convolutions with a single column, which the caller provides.
"""

import functools
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

COLUMNS = 3  # Of the kernel.

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

# Padding before and after, of rows and of columns.
Pads = tuple[tuple[int, int], ...]


def outputs(
  convolve: Callable[..., chex.Array],
  pads: Pads,
  x: chex.Array,
  w: chex.Array,
) -> chex.Array:
  """Returns the convolution of images with a kernel.

  Args:
    convolve: from row pads, images and a kernel of one column to outputs.
    pads: padding of rows and columns.
    x: [B, H, W, C].
    w: [rows, 3, C, D].
  """
  width = x.shape[2] + sum(pads[1]) - 2
  kernels = _combined(_FROM_KERNEL, jnp.split(w, COLUMNS, axis=1))
  products = [
    convolve((pads[0], (0, 0)), a, b)
    for a, b in zip(_combined_inputs(pads, x), kernels, strict=True)
  ]
  y = jnp.stack(_combined(_TO_OUTPUTS, products), axis=3)
  return y.reshape(*y.shape[:2], -1, w.shape[-1])[:, :, :width]


def weight_gradient(
  convolve: Callable[..., chex.Array],
  pads: Pads,
  x: chex.Array,
  dy: chex.Array,
) -> chex.Array:
  """Returns the gradient of `outputs` by its kernel.

  Args:
    convolve: from row pads, images and output gradients to the gradient by a
      kernel of one column.
    pads: padding of rows and columns.
    x: [B, H, W, C].
    dy: [B, h, w, D].
  """
  fill = -dy.shape[2] % _OUTPUTS
  dy = jnp.pad(dy, ((0, 0), (0, 0), (0, fill), (0, 0)))
  by_output = [dy[:, :, i::_OUTPUTS] for i in range(_OUTPUTS)]
  by_kernel = [
    convolve((pads[0], (0, 0)), a, b)
    for a, b in zip(
      _combined_inputs(pads, x),
      _combined(_TO_OUTPUTS.T, by_output),
      strict=True,
    )
  ]
  return jnp.concatenate(_combined(_FROM_KERNEL.T, by_kernel), axis=1)


def _combined_inputs(pads: Pads, x: chex.Array) -> list[chex.Array]:
  """Returns six combinations of columns for every four outputs of a row."""
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
  """Returns the sums of arrays with a matrix' rows as weights, skipping zeros."""
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
