"""Maxima over 3x3 pixels with stride 2, with a derivative made of plain sums."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp

from byol_jax.models import convolution

_KERNEL, _STRIDE = 3, 2
_OFFSETS = tuple(itertools.product(range(_KERNEL), repeat=2))
_NOWHERE = len(_OFFSETS)  # The position of a maximum that is in no window.


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(
  x: chex.Array, padding: convolution.Padding = "SAME"
) -> chex.Array:
  """Takes maxima over 3x3 pixels with stride 2.

  The derivative gives a cotangent to the first of equal maxima, as that of
  `jax.lax.reduce_window` does. That one writes to addresses that it finds out; this
  one adds up, for each pixel, what the windows around it have for it.

  Args:
    x: [..., H, W, C].
    padding: as for `convolution.conv`; what it adds is never a maximum.

  Returns:
    [..., h, w, C].
  """
  return _forward(x, padding)[0]


def _forward(x, padding):
  pads = _pads(x.shape, padding)
  outer = ((0, 0),) * (x.ndim - 3)
  padded = jnp.pad(x, (*outer, *pads, (0, 0)), constant_values=-jnp.inf)
  rows, columns = ((n - _KERNEL) // _STRIDE + 1 for n in padded.shape[-3:-1])
  parts = [
    padded[
      ...,
      row : row + _STRIDE * rows - 1 : _STRIDE,
      column : column + _STRIDE * columns - 1 : _STRIDE,
      :,
    ]
    for row, column in _OFFSETS
  ]
  largest, position = parts[0], jnp.zeros(parts[0].shape, jnp.uint8)
  for i, part in enumerate(parts[1:], 1):
    position = jnp.where(part > largest, jnp.uint8(i), position)
    largest = jnp.maximum(part, largest)
  return largest, (position, x.shape)


def _backward(padding, residuals, dy):
  position, shape = residuals
  pads = _pads(shape, padding)
  outer = ((0, 0),) * (dy.ndim - 3)
  around = (*outer, (1, 1), (1, 1), (0, 0))
  dy = jnp.pad(dy, around)
  position = jnp.pad(position, around, constant_values=_NOWHERE)
  halves = [-(-n // _STRIDE) for n in shape[-3:-1]]
  # Pixels of even and odd rows and columns are in different windows.
  phases = [
    [
      _sum_of_windows(position, dy, halves, _windows(row, column, pads))
      for column in range(_STRIDE)
    ]
    for row in range(_STRIDE)
  ]
  columns = [jnp.stack(phase, axis=-2) for phase in phases]
  dx = jnp.stack(columns, axis=-4)
  dx = dx.reshape(*shape[:-3], *(_STRIDE * n for n in halves), shape[-1])
  return (dx[..., : shape[-3], : shape[-2], :],)


def _pads(shape, padding):
  return convolution.pixels_around(shape[-3:-1], _KERNEL, _STRIDE, padding)


def _windows(row, column, pads):
  """Yields the windows that hold the pixels of a phase.

  Each is the position that such a pixel has in the window, and how far the window
  is from that of the pixel's index.
  """
  for i, offsets in enumerate(_OFFSETS):
    steps = [
      n + before - offset
      for n, (before, _), offset in zip(
        (row, column), pads, offsets, strict=True
      )
    ]
    if not any(step % _STRIDE for step in steps):
      yield i, [step // _STRIDE for step in steps]


def _sum_of_windows(position, dy, halves, windows):
  total = jnp.zeros((), dy.dtype)
  for i, shifts in windows:
    # One window more is around the array.
    rows, columns = (
      slice(1 + shift, 1 + shift + n)
      for shift, n in zip(shifts, halves, strict=True)
    )
    at = (..., rows, columns, slice(None))
    total += jnp.where(position[at] == i, dy[at], 0)
  return total


max_pool.defvjp(_forward, _backward)
