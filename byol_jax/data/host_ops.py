"""Applies sampled augmentation parameters to crops in TensorFlow, on the host.

`augment.device_ops` does the same in JAX. The code here is written for XLA on
CPUs. It works on planes, [S, S] of one channel, because these vectorise, and on
many crops per call, because each call has a cost.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from byol_jax.augment import colours, spec
from byol_jax.augment.colours import Planes

# Columns of a row that are blurred by one matrix product, see `blur`.
_BLOCK = 32


def blur_taps(size: int, sigma: tf.Tensor) -> tf.Tensor:
  """Returns the taps of a Gaussian of `sigma` pixels, which sum to 1.

  Args:
    size: side of the image, pixels; decides where the Gaussian is cut off.
    sigma: scalar float32.
  """
  radius = spec.blur_radius(size)
  taps = tf.exp(-(tf.range(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
  return taps / tf.reduce_sum(taps)


def blur(plane: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
  """Blurs a square plane by a Gaussian of `sigma` pixels.

  Taps beyond the border are lost, so borders darken as in the reference. Planes
  below 20 pixels do not change, see `spec.blur_radius`.
  """
  size = plane.shape[0]
  radius = spec.blur_radius(size)
  taps = blur_taps(size, sigma)
  return _blur_columns(_blur_rows(plane, taps, radius), taps, radius)


def _blur_rows(plane: tf.Tensor, taps: tf.Tensor, radius: int) -> tf.Tensor:
  """Blurs each row: multiplies blocks of columns by a band of taps."""
  size = plane.shape[0]
  count = -(-size // _BLOCK)
  inputs = _BLOCK + 2 * radius  # Columns that a block of results depends on.
  padded = tf.pad(plane, [[0, 0], [radius, radius + count * _BLOCK - size]])
  blocks = tf.stack(
    [padded[:, i * _BLOCK : i * _BLOCK + inputs] for i in range(count)], axis=1
  )
  offset = tf.range(inputs)[:, None] - tf.range(_BLOCK)[None, :]
  band = tf.gather(taps, tf.clip_by_value(offset, 0, 2 * radius))
  band = tf.where((offset >= 0) & (offset <= 2 * radius), band, 0.0)
  blurred = tf.matmul(tf.reshape(blocks, [size * count, inputs]), band)
  return tf.reshape(blurred, [size, count * _BLOCK])[:, :size]


def _blur_columns(plane: tf.Tensor, taps: tf.Tensor, radius: int) -> tf.Tensor:
  """Blurs each column: sums shifted planes, which vectorises along rows."""
  size = plane.shape[0]
  padded = tf.pad(plane, [[radius, radius], [0, 0]])
  shifted = [padded[i : i + size] for i in range(2 * radius + 1)]
  total = taps[radius] * shifted[radius]
  for i in range(radius):
    total += taps[i] * (shifted[i] + shifted[-1 - i])
  return total


def _jitter(
  planes: Planes, params: spec.AugmentParams, names: tuple[str, ...]
) -> Planes:
  """Applies the colour operations in their sampled order, clipping each."""

  def operation(name, planes, amount):
    def means():
      return tuple(tf.reduce_mean(plane) for plane in planes)

    changed = colours.COLOUR_OPS[name](tf, planes, amount, means)
    return tuple(colours.clip(tf, plane) for plane in changed)

  def apply_nth(i, *planes):
    # For an index such as order[i] instead of tf.gather, XLA would compile the
    # program again for every order.
    chosen = tf.gather(params.order, i)
    amount = tf.gather(params.amounts, chosen)
    branches = [lambda n=name: operation(n, planes, amount) for name in names]
    return i + 1, *tf.switch_case(chosen, branches)

  return tf.while_loop(
    lambda i, *_: i < len(names),
    apply_nth,
    (0, *planes),
    maximum_iterations=len(names),
  )[1:]


def apply(
  crops: tf.Tensor, params: spec.AugmentParams, enabled: spec.EnabledOps
) -> tf.Tensor:
  """Returns views: crops with their augmentation parameters applied.

  Args:
    crops: [N, S, S, 3] float32 in about [0, 255], from `crops.random_crops`.
    params: with a leading axis of N.
    enabled: operations that `params` may ask for.

  Returns:
    [N, S, S, 3] float32 in [0, 1].
  """
  size = crops.shape[1]

  def recolour(image, params):
    planes = tuple(tf.unstack(image))
    if enabled.jitter:
      planes = tf.cond(
        params.jitter,
        lambda: _jitter(planes, params, enabled.jitter),
        lambda: planes,
      )
    if enabled.grayscale:
      planes = tf.cond(
        params.grayscale, lambda: colours.grayscale(planes), lambda: planes
      )
    return tf.stack(planes)

  def filter_plane(plane, params):
    if enabled.blur:
      plane = tf.cond(
        params.blur, lambda: blur(plane, params.sigma), lambda: plane
      )
    if enabled.solarize:
      plane = tf.where(params.solarize, colours.solarize(tf, plane), plane)
    return plane

  images = tf.clip_by_value(crops / 255, 0.0, 1.0)
  if enabled.flip:
    flip = params.flip[:, None, None, None]
    images = tf.where(flip, images[:, :, ::-1], images)
  images = tf.transpose(images, [0, 3, 1, 2])
  if enabled.jitter or enabled.grayscale:
    images = _map(recolour, images, params)
  if enabled.blur or enabled.solarize:
    planes = tf.reshape(images, [-1, size, size])
    of_planes = spec.AugmentParams(
      *(tf.repeat(field, 3, axis=0) for field in params)
    )
    planes = _map(filter_plane, planes, of_planes)
    images = tf.reshape(planes, images.shape)
  # The taps of the blur may sum to a rounding error above 1.
  return tf.clip_by_value(tf.transpose(images, [0, 2, 3, 1]), 0.0, 1.0)


def _map(
  function: Callable[..., tf.Tensor], images: tf.Tensor, params: Any
) -> tf.Tensor:
  """Applies a function to each image and its augmentation parameters."""
  return tf.map_fn(
    lambda pair: function(*pair),
    (images, params),
    fn_output_signature=tf.float32,
  )
