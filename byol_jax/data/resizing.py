"""Resizes crops of images bicubically, without antialiasing.

`tf.image.resize` computes one value at a time. The programs here give its
numbers to 1e-6, and vectorise: each result is a weighted sum of four rows of the
image, and then of four columns of that.
"""

import math

import numpy as np
import tensorflow as tf

# Below so many pixels of the results, `tf.image.resize` is faster (measured).
_LEAST_PIXELS = 128**2
# XLA compiles a program for each size of an image, so images are padded to one of
# these sides. Our choice: two of them, because larger images take most of their
# time to decode; `tf.image.resize` serves them as well.
_PADDED_SIDES = (512, 1024)
# Rows of results that are computed together, see `_mix_columns` (measured).
_BLOCK = 16


def resize_boxes(
  image: tf.Tensor, begins: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, int]
) -> list[tf.Tensor]:
  """Returns parts of an image, resized.

  The kernel is that of `tf.image.resize`: Keys' cubic with a = -0.5, centred on
  half pixels. Pixels outside of the part do not count.

  Args:
    image: [H, W, C] uint8.
    begins, sizes: [V, 3] int32, the parts as `tf.slice` takes them: top, left and
      0; height, width and -1. They lie inside the image.
    shape: height and width of the results, pixels.

  Returns:
    V times [*shape, C] float32. They overshoot [0, 255].
  """
  if math.prod(shape) < _LEAST_PIXELS:
    return _resize_one_value_at_a_time(image, begins, sizes, shape)
  return tf.cond(
    tf.reduce_max(tf.shape(image)[:2]) <= _PADDED_SIDES[-1],
    lambda: _resize_vectorised(image, begins, sizes, shape),
    lambda: _resize_one_value_at_a_time(image, begins, sizes, shape),
  )


def _resize_one_value_at_a_time(
  image: tf.Tensor, begins: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, int]
) -> list[tf.Tensor]:
  results = []
  for box in zip(tf.unstack(begins), tf.unstack(sizes), strict=True):
    part = tf.slice(image, *box)
    part = tf.ensure_shape(part, [None, None, image.shape[-1]])
    method = tf.image.ResizeMethod.BICUBIC
    results.append(tf.image.resize(part, shape, method))
  return results


def _resize_vectorised(
  image: tf.Tensor, begins: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, int]
) -> list[tf.Tensor]:
  rows = _padded_rows(image)
  channels = image.shape[-1]
  results = []
  for begin, extent in zip(tf.unstack(begins), tf.unstack(sizes), strict=True):
    top, left, _ = tf.unstack(begin)
    height, width, _ = tf.unstack(extent)
    mixed, total = _mix_rows(rows, top, height, shape[0])
    mixed = _mix_columns(mixed, total, left, width, shape[1], channels)
    results.append(tf.ensure_shape(mixed[: shape[0]], [*shape, channels]))
  return results


def _padded_rows(image: tf.Tensor) -> tf.Tensor:
  """Returns an image as [side, side * C], with zeros to its right and below."""
  height, width, channels = tf.unstack(tf.shape(image))
  side = tf.constant(_PADDED_SIDES[-1])
  for smaller in reversed(_PADDED_SIDES[:-1]):
    side = tf.where(tf.maximum(height, width) <= smaller, smaller, side)
  rows = tf.reshape(image, [height, width * channels])
  # Concatenation is several times as fast as tf.pad.
  right = tf.zeros([height, (side - width) * channels], tf.uint8)
  rows = tf.concat([rows, right], 1)
  below = tf.zeros([side - height, side * channels], tf.uint8)
  return tf.concat([rows, below], 0)


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _mix_rows(
  rows: tf.Tensor, start: tf.Tensor, length: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns weighted sums of rows, and the sum of the weights of each.

  Args:
    rows: [N, M] uint8.
    start: first of the rows to use.
    length: number of rows to use.
    size: number of results.

  Returns:
    [P, M] and [P] float32. P is `size`, rounded up to whole blocks.
  """
  # The last row is repeated to fill the last block.
  last, count = size - 1, -(-size // _BLOCK) * _BLOCK
  indices, weights = _taps(tf.minimum(tf.range(count), last), length, size)
  return (
    _weighted_sum(rows, start + indices, weights[..., None]),
    tf.reduce_sum(weights, 0),
  )


@tf.function(jit_compile=True, autograph=False, reduce_retracing=True)
def _mix_columns(
  rows: tf.Tensor,
  total: tf.Tensor,
  start: tf.Tensor,
  length: tf.Tensor,
  size: int,
  channels: int,
) -> tf.Tensor:
  """Returns the resized part of an image, of which rows are mixed already.

  Few rows at a time are transposed, so that they stay in the fastest cache.

  Args:
    rows, total: results of `_mix_rows`.
    start: first of the columns to use.
    length: number of columns to use.
    size: number of results of a row.
    channels: of the image.

  Returns:
    [P, size, channels] float32, for the P rows that `_mix_rows` returned.
  """
  indices, weights = _taps(tf.range(size), length, size)
  column_total = tf.reduce_sum(weights, 0)[:, None, None]

  def mix_block(block):
    rows, total = block
    columns = tf.reshape(tf.transpose(rows), [-1, channels, _BLOCK])
    # XLA does not repeat a division in what reads the result several times; it
    # would repeat the transposition.
    mixed = _weighted_sum(
      columns / total, start + indices, weights[..., None, None]
    )
    return tf.transpose(mixed / column_total, [2, 0, 1])

  blocks = (
    tf.reshape(rows, [-1, _BLOCK, tf.shape(rows)[1]]),
    tf.reshape(total, [-1, _BLOCK]),
  )
  mixed = tf.map_fn(mix_block, blocks, fn_output_signature=tf.float32)
  return tf.reshape(mixed, [-1, size, channels])


def _weighted_sum(
  rows: tf.Tensor, indices: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
  """Returns the weighted sums of the rows at indices of [4, N]."""
  return tf.add_n(
    [
      weight * tf.cast(tf.gather(rows, index), tf.float32)
      for index, weight in zip(
        tf.unstack(indices), tf.unstack(weights), strict=True
      )
    ]
  )


def _taps(
  results: tf.Tensor, length: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns which of `length` values are mixed, and by which weights.

  Args:
    results: [N] indices of results, below `size`.
    length: number of values that are resized.
    size: number of values that they are resized to.

  Returns:
    Indices [4, N] int32 and weights [4, N] float32, which need not sum to 1.
  """
  near, far = _cubic()
  steps = len(near) - 1
  scale = tf.cast(length, tf.float32) / size
  position = (tf.cast(results, tf.float32) + 0.5) * scale - 0.5
  before = tf.floor(position)
  step = tf.cast(tf.round((position - before) * steps), tf.int32)
  weights = tf.stack(
    [
      tf.gather(far, step),
      tf.gather(near, step),
      tf.gather(near, steps - step),
      tf.gather(far, steps - step),
    ]
  )
  indices = tf.cast(before, tf.int32) + tf.range(-1, 3)[:, None]
  is_inside = (indices >= 0) & (indices < length)
  weights = tf.where(is_inside, weights, 0.0)
  return tf.clip_by_value(indices, 0, length - 1), weights


def _cubic() -> tuple[np.ndarray, np.ndarray]:
  """Returns Keys' cubic at distances from 0 to 1, and from 1 to 2.

  It is tabulated in 1024 steps, as in TensorFlow's kernel `ResizeBicubic`.
  """
  a = -0.5
  x = np.linspace(0, 1, 1025)
  near = ((a + 2) * x - (a + 3)) * x**2 + 1
  x += 1
  far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
  return near.astype(np.float32), far.astype(np.float32)
