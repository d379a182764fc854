"""Random views of one image: stateless, seeded TensorFlow operations.

Images are [H, W, C] uint8 before the crop and [S, S, 3] float32 in [0, 1] from
there on. The operations, their order and their ranges are those of Grill et
al. 2020 (arXiv 2006.07733v3), appendix B, with the details of
deepmind-research/byol (utils/augmentations.py, utils/dataset.py).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class View(NamedTuple):
  """How one of the two views is drawn; ranges are (low, high)."""

  crop_area: tuple[float, float]  # Share of the image's area.
  crop_aspect: tuple[float, float]  # Width / height.
  flip_prob: float
  jitter_prob: float
  brightness: float  # Largest change; 0 leaves the operation out.
  contrast: float  # Largest change of the factor.
  saturation: float  # Largest change of the factor.
  hue: float  # Largest shift, in turns of the colour circle.
  grayscale_prob: float
  blur_prob: float
  blur_sigma: tuple[float, float]  # Pixels.
  solarize_prob: float


# Field of `View`: the operation, and the amount that changes nothing, about
# which its amount is drawn.
JITTER: dict[str, tuple[Callable, float]] = {
  "brightness": (tf.image.adjust_brightness, 0.0),
  "contrast": (tf.image.adjust_contrast, 1.0),
  "saturation": (tf.image.adjust_saturation, 1.0),
  "hue": (tf.image.adjust_hue, 0.0),
}


def grayscale(image: tf.Tensor) -> tf.Tensor:
  """Returns the luminance (weights .2989, .5870, .1140) in all 3 channels."""
  return tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))


def solarize(image: tf.Tensor) -> tf.Tensor:
  """Inverts every value of at least one half."""
  return tf.where(image < 0.5, image, 1 - image)


def blur_kernel(size: int, sigma: tf.Tensor) -> tf.Tensor:
  """Returns the [size, size] matrix that blurs a column of `size` pixels.

  A row holds a normal density of `sigma` pixels, cut off at a twentieth of the
  side and normalised to sum 1; taps beyond the border are lost, so borders
  darken as they do in the reference.
  """
  radius = int(size / 10 / 2)
  offset = tf.range(size)[:, None] - tf.range(size)[None, :]
  squares = tf.cast(tf.range(-radius, radius + 1), tf.float32) ** 2
  total = tf.reduce_sum(tf.exp(-squares / (2 * sigma**2)))
  weights = tf.exp(-(tf.cast(offset, tf.float32) ** 2) / (2 * sigma**2))
  return tf.where(tf.abs(offset) <= radius, weights / total, 0.0)


def gaussian_blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
  """Blurs a square image; one below 20 pixels is too small and stays as it is.

  Two products with a banded matrix are several times faster on a CPU than
  depthwise convolutions.
  """
  size = image.shape[0]
  kernel = blur_kernel(size, sigma)
  for _ in range(2):  # Columns; then rows, which the transpose made columns.
    image = tf.matmul(kernel, tf.reshape(image, [size, size * 3]))
    image = tf.transpose(tf.reshape(image, [size, size, 3]), [1, 0, 2])
  return image


def _resize(image: tf.Tensor, image_size: int) -> tf.Tensor:
  """Returns a uint8 image resized, scaled to [0, 1] and with 3 channels."""
  size = (image_size, image_size)
  image = tf.image.resize(image, size, tf.image.ResizeMethod.BICUBIC)
  image = tf.clip_by_value(image / 255, 0.0, 1.0)  # Bicubic overshoots.
  return tf.broadcast_to(image, [*size, 3])  # Grey images come with 1.


def random_crop(
  image: tf.Tensor, u: tf.Tensor, view: View, image_size: int
) -> tf.Tensor:
  """Returns a random part of an image, resized to a square.

  One draw without retries: width and height are limited to the image's one by
  one, so the crop of a very elongated image may leave the asked-for ranges.

  Args:
    image: [H, W, 1 or 3] uint8.
    u: [4] in [0, 1), which decide area, aspect, top and left.
    view: its `crop_area` and `crop_aspect` are the ranges.
    image_size: side of the result, pixels.

  Returns:
    [image_size, image_size, 3] float32 in [0, 1].
  """
  height, width = tf.unstack(tf.shape(image)[:2])
  u_area, u_aspect, u_top, u_left = tf.unstack(u)
  pixels = tf.cast(height * width, tf.float32)
  area = pixels * _between(u_area, *view.crop_area)
  low, high = view.crop_aspect
  aspect = tf.exp(_between(u_aspect, math.log(low), math.log(high)))
  crop_width = _limit(tf.round(tf.sqrt(area * aspect)), width)
  crop_height = _limit(tf.round(tf.sqrt(area / aspect)), height)
  top = _below(u_top, height - crop_height + 1)
  left = _below(u_left, width - crop_width + 1)
  image = image[top : top + crop_height, left : left + crop_width]
  return _resize(image, image_size)


def eval_image(image: tf.Tensor, image_size: int, crop: float) -> tf.Tensor:
  """Returns the central square of an image, resized.

  Args:
    image: [H, W, 1 or 3] uint8.
    image_size: side of the result, pixels.
    crop: side of the square as a share of the image's short side.

  Returns:
    [image_size, image_size, 3] float32 in [0, 1].
  """
  height, width = tf.unstack(tf.shape(image)[:2])
  short = tf.minimum(height, width)
  side = _limit(crop * tf.cast(short, tf.float32), short)
  top = (height - side + 1) // 2
  left = (width - side + 1) // 2
  image = image[top : top + side, left : left + side]
  return _resize(image, image_size)


def _between(u: tf.Tensor, low: float, high: float) -> tf.Tensor:
  """Maps a draw from [0, 1) into [low, high)."""
  return low + u * (high - low)


def _below(u: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
  """Maps a draw from [0, 1) to an integer in [0, count)."""
  return tf.cast(u * tf.cast(count, tf.float32), tf.int32)


def _limit(length: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
  """Returns a length in whole pixels, from 1 to `most`."""
  return tf.clip_by_value(tf.cast(length, tf.int32), 1, most)


def _maybe(
  operation: Callable, image: tf.Tensor, u: tf.Tensor, probability: float
) -> tf.Tensor:
  """Applies an operation where u, a draw from [0, 1), is below a probability.

  What is certain needs no condition, and what is impossible no operation.
  """
  if probability == 0:
    return image
  if probability == 1:
    return operation(image)
  return tf.cond(u < probability, lambda: operation(image), lambda: image)


def _jitter(
  image: tf.Tensor, view: View, u_amount: tf.Tensor, u_order: tf.Tensor
) -> tf.Tensor:
  """Changes brightness, contrast, saturation and hue, in an order by `u_order`.

  Args:
    image: [S, S, 3] float32 in [0, 1].
    view: its fields named in `JITTER` are the largest changes.
    u_amount: [4] in [0, 1), which decide the amounts.
    u_order: [4] in [0, 1), whose ranks decide the order.

  Returns:
    [S, S, 3] float32, clipped to [0, 1] after each operation.
  """

  def branch(name, u):
    operation, neutral = JITTER[name]
    strength = getattr(view, name)
    amount = neutral + _between(u, -strength, strength)
    return lambda: tf.clip_by_value(operation(image, amount), 0.0, 1.0)

  active = [
    (name, u)
    for name, u in zip(JITTER, tf.unstack(u_amount), strict=True)
    if getattr(view, name)
  ]
  for index in tf.unstack(tf.argsort(u_order[: len(active)])):
    image = tf.switch_case(index, [branch(name, u) for name, u in active])
  return image


def random_view(
  image: tf.Tensor, view: View, image_size: int, seed: tf.Tensor
) -> tf.Tensor:
  """Returns a random view of an image.

  Args:
    image: [H, W, 1 or 3] uint8.
    view: what is drawn, and how strongly.
    image_size: side of the result, pixels.
    seed: [2] integers, which decide everything random.

  Returns:
    [image_size, image_size, 3] float32 in [0, 1].
  """
  u_crop, u_amount, u_order, u_rest = tf.split(
    tf.random.stateless_uniform([18], seed), [4, 4, 4, 6]
  )
  u_flip, u_jitter, u_gray, u_blur, u_sigma, u_solarize = tf.unstack(u_rest)

  def jitter(image):
    return _jitter(image, view, u_amount, u_order)

  def blur(image):
    return gaussian_blur(image, _between(u_sigma, *view.blur_sigma))

  image = random_crop(image, u_crop, view, image_size)
  image = _maybe(tf.image.flip_left_right, image, u_flip, view.flip_prob)
  image = _maybe(jitter, image, u_jitter, view.jitter_prob)
  image = _maybe(grayscale, image, u_gray, view.grayscale_prob)
  image = _maybe(blur, image, u_blur, view.blur_prob)
  image = _maybe(solarize, image, u_solarize, view.solarize_prob)
  # Blurring weights may sum to a rounding error above 1.
  return tf.clip_by_value(image, 0.0, 1.0)


def two_views(
  image: tf.Tensor, view1: View, view2: View, image_size: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns two independent views of an image.

  Args:
    image: [H, W, 1 or 3] uint8.
    view1: how the first view is drawn.
    view2: how the second view is drawn.
    image_size: side of the results, pixels.
    seed: [2] int64: the run's seed and the example's index in the stream.

  Returns:
    Two [image_size, image_size, 3] float32 in [0, 1].
  """
  seed1, seed2 = tf.unstack(tf.random.split(seed, 2))
  return (
    random_view(image, view1, image_size, seed1),
    random_view(image, view2, image_size, seed2),
  )
