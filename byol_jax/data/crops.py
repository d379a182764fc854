"""Cuts random crops and centre crops out of an image and resizes them."""

from collections.abc import Sequence

import tensorflow as tf

from byol_jax.augment import sampling, spec
from byol_jax.data import resizing


def random_numbers(seed: tf.Tensor, enabled: spec.EnabledOps) -> tf.Tensor:
  """Returns all random numbers of the two views of an example, from one draw.

  `augment.device_random.uniform` returns the same.

  Args:
    seed: [2] int64, the run's seed and the example's position in the stream.
    enabled: operations of the views.

  Returns:
    [2, N] float32 in [0, 1): one row per view, see `sampling.by_view`.
  """
  count = sampling.count_numbers(enabled)
  return sampling.by_view(tf, tf.random.stateless_uniform([count], seed))


def random_crops(
  image: tf.Tensor,
  u: tf.Tensor,
  crops: Sequence[spec.Crop],
  image_shape: tuple[int, int],
) -> list[tf.Tensor]:
  """Returns random crops of an image, resized.

  Args:
    image: [H, W, 1 or 3] uint8.
    u: [V, 4] in [0, 1), the random numbers `spec.CROP_NUMBERS` of each crop.
    crops: V specifications, whose area and aspect are used.
    image_shape: height and width of the results, pixels.

  Returns:
    V times [*image_shape, 3] float32 in about [0, 255]. Bicubic
    interpolation overshoots; clipping is left to `host_ops.apply` and
    `device_ops.apply`, which do it faster.
  """
  # Computes all boxes at once, because these few numbers take half the time of
  # cropping a small image.
  height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
  regions = sampling.crop_boxes(
    tf, height, width, tf.convert_to_tensor(u), crops, image_shape
  )
  return _resized(image, regions, image_shape)


def two_random_crops(
  image: tf.Tensor, views: spec.Views, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns the crops of two independent views and their random numbers.

  Args:
    image: [H, W, 1 or 3] uint8.
    views: specification of both views.
    seed: see `random_numbers`.

  Returns:
    Two crops, see `random_crops`, and two rows of random numbers, of which
    `sampling.augment_params` makes the views' augmentation parameters.
  """
  numbers = random_numbers(seed, spec.enabled_ops(views.view1, views.view2))
  crop1, crop2 = random_crops(
    image,
    sampling.crop_numbers(numbers),
    (views.view1, views.view2),
    views.image_shape,
  )
  numbers1, numbers2 = tf.unstack(numbers)
  return crop1, crop2, numbers1, numbers2


def centre_crop(
  image: tf.Tensor, image_shape: tuple[int, int], fraction: float
) -> tf.Tensor:
  """Returns the central region of an image, resized.

  Args:
    image: [H, W, 1 or 3] uint8.
    image_shape: height and width of the result, pixels.
    fraction: see `sampling.centre_box`.

  Returns:
    [*image_shape, 3] float32 in [0, 1].
  """
  height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
  box = sampling.centre_box(tf, height, width, fraction, image_shape)
  boxes = sampling.Boxes(*(length[None] for length in box))
  (crop,) = _resized(image, boxes, image_shape)
  return tf.clip_by_value(crop / 255, 0.0, 1.0)


def _resized(
  image: tf.Tensor, boxes: sampling.Boxes, image_shape: tuple[int, int]
) -> list[tf.Tensor]:
  """Returns regions of an image, [V] each, resized and in three channels."""
  whole = tf.cast(tf.stack(boxes, axis=1), tf.int32)
  top, left, height, width = tf.unstack(whole, axis=1)
  begins = tf.stack([top, left, tf.zeros_like(top)], axis=1)
  sizes = tf.stack([height, width, -tf.ones_like(top)], axis=1)
  resized = resizing.resize_boxes(image, begins, sizes, image_shape)
  return [
    crop if crop.shape[-1] == 3 else tf.repeat(crop, 3, axis=-1)
    for crop in resized
  ]
