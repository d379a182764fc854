"""Random views of one image: stateless, seeded TensorFlow operations.

Images are [H, W, C] uint8 before the crop and [S, S, 3] float32 from there on.
The operations, their order and their ranges are those of Grill et al. 2020
(arXiv 2006.07733v3), appendix B, with the details of deepmind-research/byol
(utils/augmentations.py, utils/dataset.py).

A view is made in three steps: `crops`, which needs the image; `draw`, which turns
random numbers into a `Recipe`; and `finish`, which cooks crops by their recipes
and is written for XLA: it works on planes [S, S] of one channel, which
vectorise, and on many crops a call, which pays for the call. On accelerators
`device_augment.finish` does the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from byol_jax.augment.spec import View

# Random numbers in [0, 1) that a view takes: the first four for its crop.
_DRAWS = 18
_CROP_DRAWS = 4

# Columns of a row that are blurred by one product, see `blur`.
_BLOCK = 32

Planes = tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # Red, green, blue: [S, S].


class Recipe(NamedTuple):
  """What is done to a crop; with a leading axis, to each of many.

  Attributes:
    flip: bool, whether left and right are swapped.
    jitter: bool, whether the colour operations happen.
    order: [J] int32, in which order, as indices into `Possible.jitter`.
    amounts: [J] float32, how strongly, by the same indices.
    grayscale: bool.
    blur: bool.
    sigma: float32, of the blur, pixels.
    solarize: bool.
  """

  flip: tf.Tensor
  jitter: tf.Tensor
  order: tf.Tensor
  amounts: tf.Tensor
  grayscale: tf.Tensor
  blur: tf.Tensor
  sigma: tf.Tensor
  solarize: tf.Tensor


class Possible(NamedTuple):
  """Which operations some view can ask for; others need not be compiled."""

  flip: bool
  jitter: tuple[str, ...]  # Names in `JITTER`.
  grayscale: bool
  blur: bool
  solarize: bool


def possible(*views: View) -> Possible:
  """Returns the operations that at least one of the views can ask for."""
  return Possible(
    flip=any(view.flip_prob for view in views),
    jitter=tuple(
      name
      for name in JITTER
      if any(view.jitter_prob and getattr(view, name) for view in views)
    ),
    grayscale=any(view.grayscale_prob for view in views),
    blur=any(view.blur_prob for view in views),
    solarize=any(view.solarize_prob for view in views),
  )


def brightness(planes: Planes, amount: tf.Tensor) -> Planes:
  """Adds an amount to every value."""
  return tuple(plane + amount for plane in planes)


def contrast(planes: Planes, factor: tf.Tensor) -> Planes:
  """Scales every value's distance from its channel's mean."""

  def scaled(plane):
    mean = tf.reduce_mean(plane)
    return (plane - mean) * factor + mean

  return tuple(scaled(plane) for plane in planes)


def saturation(planes: Planes, factor: tf.Tensor) -> Planes:
  """Scales the S of HSV, to 1 at most.

  At fixed hue and value, a channel's distance from the value is in proportion
  to S: there is no need to go to HSV and back.
  """
  value, chroma = _value_and_chroma(planes)
  factor = tf.minimum(factor, value / tf.maximum(chroma, 1e-12))
  return tuple(value - factor * (value - plane) for plane in planes)


def hue(planes: Planes, amount: tf.Tensor) -> Planes:
  """Shifts the H of HSV by an amount in turns of the colour circle."""
  red, green, blue = planes
  value, chroma = _value_and_chroma(planes)
  scale = 1 / tf.maximum(chroma, 1e-12)
  sixths = tf.where(
    value == red,
    (green - blue) * scale,
    tf.where(
      value == green, (blue - red) * scale + 2, (red - green) * scale + 4
    ),
  )
  sixths += 6 * amount

  def channel(offset):
    k = sixths + offset
    k -= 6 * tf.floor(k / 6)
    return value - chroma * tf.clip_by_value(tf.minimum(k, 4 - k), 0.0, 1.0)

  return channel(5.0), channel(3.0), channel(1.0)


def _value_and_chroma(planes: Planes) -> tuple[tf.Tensor, tf.Tensor]:
  """The largest of the three channels, and its distance from the smallest."""
  red, green, blue = planes
  value = tf.maximum(tf.maximum(red, green), blue)
  return value, value - tf.minimum(tf.minimum(red, green), blue)


# Field of `View`: the operation, and the amount that changes nothing, about
# which its amount is drawn.
JITTER: dict[str, tuple[Callable, float]] = {
  "brightness": (brightness, 0.0),
  "contrast": (contrast, 1.0),
  "saturation": (saturation, 1.0),
  "hue": (hue, 0.0),
}


def grayscale(planes: Planes) -> Planes:
  """Returns the luminance in all three channels."""
  red, green, blue = planes
  luminance = 0.2989 * red + 0.5870 * green + 0.1140 * blue
  return luminance, luminance, luminance


def solarize(plane: tf.Tensor) -> tf.Tensor:
  """Inverts every value of at least one half."""
  return tf.where(plane < 0.5, plane, 1 - plane)


def blur_radius(size: int) -> int:
  """Returns the taps of the blur on either side, a twentieth of the side."""
  return int(size / 10 / 2)


def blur_taps(size: int, sigma: tf.Tensor) -> tf.Tensor:
  """Returns the normal density of `sigma` pixels, cut off and of sum 1."""
  radius = blur_radius(size)
  taps = tf.exp(-(tf.range(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
  return taps / tf.reduce_sum(taps)


def blur(plane: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
  """Blurs a square plane; one below 20 pixels is too small and stays as it is.

  Taps beyond the border are lost, so borders darken as in the reference.
  """
  size = plane.shape[0]
  radius = blur_radius(size)
  taps = blur_taps(size, sigma)
  # Rows: blocks of columns, each by a product of what they see with a band of
  # taps. Columns: a sum of shifted planes, which only vectorises this way round.
  count = -(-size // _BLOCK)
  seen = _BLOCK + 2 * radius
  padded = tf.pad(plane, [[0, 0], [radius, radius + count * _BLOCK - size]])
  blocks = tf.stack(
    [padded[:, i * _BLOCK : i * _BLOCK + seen] for i in range(count)], axis=1
  )
  offset = tf.range(seen)[:, None] - tf.range(_BLOCK)[None, :]
  band = tf.gather(taps, tf.clip_by_value(offset, 0, 2 * radius))
  band = tf.where((offset >= 0) & (offset <= 2 * radius), band, 0.0)
  plane = tf.matmul(tf.reshape(blocks, [size * count, seen]), band)
  plane = tf.reshape(plane, [size, count * _BLOCK])[:, :size]

  padded = tf.pad(plane, [[radius, radius], [0, 0]])
  shifted = [padded[i : i + size] for i in range(2 * radius + 1)]
  total = taps[radius] * shifted[radius]
  for i in range(radius):
    total += taps[i] * (shifted[i] + shifted[-1 - i])
  return total


def _resize(image: tf.Tensor, image_size: int) -> tf.Tensor:
  """Returns a uint8 image resized, with 3 channels; bicubic overshoots."""
  size = (image_size, image_size)
  resized = tf.image.resize(image, size, tf.image.ResizeMethod.BICUBIC)
  if image.shape[-1] == 3:
    return resized
  return tf.broadcast_to(resized, [*size, 3])


def crops(
  image: tf.Tensor, u: tf.Tensor, views: Sequence[View], image_size: int
) -> list[tf.Tensor]:
  """Returns a random part of an image for each view, resized to a square.

  One draw without retries: width and height are limited to the image's one by
  one, so the crop of a very elongated image may leave the asked-for ranges.

  Args:
    image: [H, W, 1 or 3] uint8.
    u: [V, 4] in [0, 1), which decide area, aspect, top and left.
    views: their `crop_area` and `crop_aspect` are the ranges.
    image_size: side of the results, pixels.

  Returns:
    [image_size, image_size, 3] float32 each, in about [0, 255]: bicubic
    overshoots, and it is left to `finish`, which is fast at it, to clip.
  """
  # All boxes at once: of a small image, these few numbers are half the work.
  height, width = tf.unstack(tf.shape(image)[:2])
  u_area, u_aspect, u_top, u_left = tf.unstack(u, axis=1)
  low_area, high_area = zip(*(view.crop_area for view in views), strict=True)
  low_aspect, high_aspect = zip(
    *(map(math.log, view.crop_aspect) for view in views), strict=True
  )
  pixels = tf.cast(height * width, tf.float32)
  area = pixels * _between(
    u_area, tf.constant(low_area), tf.constant(high_area)
  )
  aspect = tf.exp(
    _between(u_aspect, tf.constant(low_aspect), tf.constant(high_aspect))
  )
  crop_width = _limit(tf.round(tf.sqrt(area * aspect)), width)
  crop_height = _limit(tf.round(tf.sqrt(area / aspect)), height)
  top = _below(u_top, height - crop_height + 1)
  left = _below(u_left, width - crop_width + 1)
  begin = tf.stack([top, left, tf.zeros_like(top)], axis=1)
  size = tf.stack([crop_height, crop_width, -tf.ones_like(top)], axis=1)
  boxes = zip(tf.unstack(begin), tf.unstack(size), strict=True)
  return [_resize(_slice(image, *box), image_size) for box in boxes]


def _slice(image: tf.Tensor, begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
  part = tf.slice(image, begin, size)
  return tf.ensure_shape(part, [None, None, image.shape[-1]])


def eval_image(image: tf.Tensor, image_size: int, share: float) -> tf.Tensor:
  """Returns the central square of an image, resized.

  Args:
    image: [H, W, 1 or 3] uint8.
    image_size: side of the result, pixels.
    share: side of the square as a share of the image's short side.

  Returns:
    [image_size, image_size, 3] float32 in [0, 1].
  """
  height, width = tf.unstack(tf.shape(image)[:2])
  short = tf.minimum(height, width)
  side = _limit(share * tf.cast(short, tf.float32), short)
  top = (height - side + 1) // 2
  left = (width - side + 1) // 2
  image = image[top : top + side, left : left + side]
  return tf.clip_by_value(_resize(image, image_size) / 255, 0.0, 1.0)


def _between(u: tf.Tensor, low: float, high: float) -> tf.Tensor:
  """Maps a draw from [0, 1) into [low, high)."""
  return low + u * (high - low)


def _below(u: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
  """Maps a draw from [0, 1) to an integer in [0, count)."""
  return tf.cast(u * tf.cast(count, tf.float32), tf.int32)


def _limit(length: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
  """Returns a length in whole pixels, from 1 to `most`."""
  return tf.clip_by_value(tf.cast(length, tf.int32), 1, most)


def draw(u: tf.Tensor, view: View, operations: Possible) -> Recipe:
  """Turns random numbers into recipes.

  Args:
    u: [..., 14] in [0, 1): those of `two_crops` after the crop's.
    view: how likely and how strong everything is.
    operations: what `finish` will be given; decides what `order` refers to.

  Returns:
    A recipe with the leading axes of `u`.
  """
  u_amount, u_order, u_rest = tf.split(u, [4, 4, 6], axis=-1)
  u_flip, u_jitter, u_gray, u_blur, u_sigma, u_solarize = tf.unstack(
    u_rest, axis=-1
  )
  amounts = [
    JITTER[name][1]
    + _between(
      u_amount[..., list(JITTER).index(name)],
      -getattr(view, name),
      getattr(view, name),
    )
    for name in operations.jitter
  ]
  count = len(operations.jitter)
  return Recipe(
    flip=u_flip < view.flip_prob,
    jitter=u_jitter < view.jitter_prob,
    order=tf.argsort(u_order[..., :count]),
    amounts=tf.stack(amounts, axis=-1) if count else u_order[..., :0],
    grayscale=u_gray < view.grayscale_prob,
    blur=u_blur < view.blur_prob,
    sigma=_between(u_sigma, *view.blur_sigma),
    solarize=u_solarize < view.solarize_prob,
  )


def _jitter(planes: Planes, recipe: Recipe, names: tuple[str, ...]) -> Planes:
  """Does the colour operations in the recipe's order, clipping after each."""

  def operation(name, planes, amount):
    changed = JITTER[name][0](planes, amount)
    return tuple(tf.clip_by_value(plane, 0.0, 1.0) for plane in changed)

  def one(i, *planes):
    # tf.gather: an index such as order[i] would make XLA compile the whole
    # again for every order.
    chosen = tf.gather(recipe.order, i)
    amount = tf.gather(recipe.amounts, chosen)
    branches = [lambda n=name: operation(n, planes, amount) for name in names]
    return i + 1, *tf.switch_case(chosen, branches)

  return tf.while_loop(
    lambda i, *_: i < len(names),
    one,
    (0, *planes),
    maximum_iterations=len(names),
  )[1:]


def finish(
  crops: tf.Tensor, recipes: Recipe, operations: Possible
) -> tf.Tensor:
  """Does to each crop what its recipe says.

  Args:
    crops: [N, S, S, 3] float32, from `crops`.
    recipes: with a leading axis of N.
    operations: those that recipes may ask for.

  Returns:
    [N, S, S, 3] float32 in [0, 1].
  """
  size = crops.shape[1]

  def recolour(image, recipe):
    planes = tuple(tf.unstack(image))
    if operations.jitter:
      planes = tf.cond(
        recipe.jitter,
        lambda: _jitter(planes, recipe, operations.jitter),
        lambda: planes,
      )
    if operations.grayscale:
      planes = tf.cond(
        recipe.grayscale, lambda: grayscale(planes), lambda: planes
      )
    return tf.stack(planes)

  def filtered(plane, recipe):
    if operations.blur:
      plane = tf.cond(
        recipe.blur, lambda: blur(plane, recipe.sigma), lambda: plane
      )
    if operations.solarize:
      plane = tf.where(recipe.solarize, solarize(plane), plane)
    return plane

  def for_each(function, images, recipes):
    return tf.map_fn(
      lambda pair: function(*pair),
      (images, recipes),
      fn_output_signature=tf.float32,
    )

  images = tf.clip_by_value(crops / 255, 0.0, 1.0)
  if operations.flip:
    flip = recipes.flip[:, None, None, None]
    images = tf.where(flip, images[:, :, ::-1], images)
  images = tf.transpose(images, [0, 3, 1, 2])
  if operations.jitter or operations.grayscale:
    images = for_each(recolour, images, recipes)
  if operations.blur or operations.solarize:
    planes = tf.reshape(images, [-1, size, size])
    thrice = Recipe(*(tf.repeat(field, 3, axis=0) for field in recipes))
    images = tf.reshape(for_each(filtered, planes, thrice), images.shape)
  # Blurring weights may sum to a rounding error above 1.
  return tf.clip_by_value(tf.transpose(images, [0, 2, 3, 1]), 0.0, 1.0)


def two_crops(
  image: tf.Tensor, view1: View, view2: View, image_size: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns the crops of two independent views, and what finishes them.

  Args:
    image: [H, W, 1 or 3] uint8.
    view1: how the first view is drawn.
    view2: how the second view is drawn.
    image_size: side of the results, pixels.
    seed: [2] int64: the run's seed and the example's index in the stream.

  Returns:
    Two crops, see `crops`, and for each the random numbers that `draw` takes.
  """
  u = tf.random.stateless_uniform([2, _DRAWS], seed)
  return (
    *crops(image, u[:, :_CROP_DRAWS], (view1, view2), image_size),
    *tf.unstack(u[:, _CROP_DRAWS:]),
  )
