"""Turns random numbers into crops and augmentation parameters, in any framework.

The functions take the module that computes: `tensorflow` on the host, `jax.numpy`
on the device. They use only what both spell alike.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax.augment import spec

_OFFSETS = {name: i for i, name in enumerate(spec.RANDOM_NUMBERS)}


def crop_numbers(numbers: Any) -> Any:
  """Returns the random numbers [..., 4] of rows that decide the crop."""
  return numbers[..., : len(spec.CROP_NUMBERS)]


def count_numbers(enabled: spec.EnabledOps) -> int:
  """Returns how many random numbers the two views of an image take."""
  of_extra = len(enabled.extra) * (1 + spec.EXTRA_NUMBERS)
  return 2 * (len(spec.RANDOM_NUMBERS) + of_extra)


def by_view(xp: Any, numbers: Any) -> Any:
  """Returns the random numbers of each view.

  Args:
    xp: the module that computes.
    numbers: [..., N], with N from `count_numbers`: `spec.RANDOM_NUMBERS` of the first
      view, of the second, and then those of `extra_ops` of the first and the second.

  Returns:
    [..., 2, N / 2].
  """
  usual = len(spec.RANDOM_NUMBERS)
  of_extra = numbers.shape[-1] // 2 - usual
  parts = [
    numbers[..., start + view * length : start + (view + 1) * length]
    for view in (0, 1)
    for start, length in ((0, usual), (2 * usual, of_extra))
  ]
  return xp.stack(
    [xp.concat(parts[:2], axis=-1), xp.concat(parts[2:], axis=-1)], axis=-2
  )


class Boxes(NamedTuple):
  """The regions of crops, in whole pixels as float32, [..., V] each."""

  top: Any
  left: Any
  height: Any
  width: Any


def crop_boxes(
  xp: Any,
  height: Any,
  width: Any,
  u: Any,
  crops: Sequence[spec.Crop],
  image_shape: tuple[int, int],
) -> Boxes:
  """Returns the regions of the random crops of an image.

  Each crop is one draw without retries. Its width and height are limited to
  those of the image one by one, so a crop of a very elongated image may leave
  the specified ranges.

  Args:
    xp: the module that computes.
    height: of the image, pixels, float32 that broadcasts to [..., V].
    width: likewise.
    u: [..., V, 4] in [0, 1), the random numbers `spec.CROP_NUMBERS` of each crop.
    crops: V specifications, whose area and aspect are used.
    image_shape: height and width of the views. The aspect of a crop is relative to
      theirs, so that wide views distort an image no more than square ones.
  """
  rows, columns = image_shape
  aspects = np.multiply([crop.crop_aspect for crop in crops], columns / rows)
  area_range = np.array([crop.crop_area for crop in crops], np.float32)
  aspect_range = np.log(aspects).astype(np.float32)
  area = height * width * between(u[..., 0], *area_range.T)
  aspect = xp.exp(between(u[..., 1], *aspect_range.T))
  crop_width = _limited(xp, xp.round(xp.sqrt(area * aspect)), width)
  crop_height = _limited(xp, xp.round(xp.sqrt(area / aspect)), height)
  return Boxes(
    top=xp.floor(u[..., 2] * (height - crop_height + 1)),
    left=xp.floor(u[..., 3] * (width - crop_width + 1)),
    height=crop_height,
    width=crop_width,
  )


def centre_box(
  xp: Any,
  height: Any,
  width: Any,
  fraction: float,
  image_shape: tuple[int, int],
) -> Boxes:
  """Returns the central region of an image that evaluations show.

  Args:
    xp: the module that computes.
    height: of the image, pixels, float32 of any shape.
    width: likewise.
    fraction: sides of the region over those of the largest one of its aspect, which
      is that of `image_shape`.
    image_shape: height and width that the region is resized to.
  """
  # In lowest terms, a square's ratio is 1:1, and its side has no rounding error.
  common = math.gcd(*image_shape)
  rows, columns = (float(length // common) for length in image_shape)
  tallest = xp.minimum(height, width * rows / columns)
  widest = xp.minimum(width, height * columns / rows)
  box_height = _limited(xp, xp.floor(fraction * tallest), height)
  box_width = _limited(xp, xp.floor(fraction * widest), width)
  return Boxes(
    top=xp.floor((height - box_height + 1) / 2),
    left=xp.floor((width - box_width + 1) / 2),
    height=box_height,
    width=box_width,
  )


def augment_params(
  xp: Any, numbers: Any, view: spec.View, enabled: spec.EnabledOps
) -> spec.AugmentParams:
  """Returns the augmentation parameters that random numbers stand for.

  Args:
    xp: the module that computes.
    numbers: [..., N] in [0, 1), of one view, see `by_view`.
    view: probability and strength of every operation.
    enabled: operations that the parameters are applied with. `order` and
      `amounts` are indexed by its colour operations.

  Returns:
    Parameters with the leading axes of `numbers`.
  """

  def number(name: str) -> Any:
    return numbers[..., _OFFSETS[name]]

  occurs = {
    name: number(name) < getattr(view, f"{name}_prob") for name in spec.OPS
  }
  amounts = [
    spec.COLOUR_OPS[name].neutral
    + between(
      number(f"{name} amount"), -getattr(view, name), getattr(view, name)
    )
    for name in enabled.jitter
  ]
  count, first = len(enabled.jitter), _OFFSETS["order 0"]
  order = numbers[..., first : first + count]
  extra, extra_numbers = _extra_params(xp, numbers, view, enabled.extra)
  return spec.AugmentParams(
    order=xp.argsort(order) if count else (),
    amounts=xp.stack(amounts, axis=-1) if count else (),
    sigma=between(number("blur sigma"), *view.blur_sigma),
    extra=extra,
    extra_numbers=extra_numbers,
    **occurs,
  )


def _extra_params(
  xp: Any, numbers: Any, view: spec.View, names: Sequence[str]
) -> tuple[Any, Any]:
  """Returns whether each operation of `extra_ops` occurs, and its numbers."""
  if not names:
    return (), ()
  numbers = numbers[..., len(spec.RANDOM_NUMBERS) :]
  decision, *others = (
    numbers[..., i * len(names) : (i + 1) * len(names)]
    for i in range(1 + spec.EXTRA_NUMBERS)
  )
  given = spec.extra_probabilities(view)
  probabilities = np.array([given.get(name, 0) for name in names], np.float32)
  leading = tuple(range(len(numbers.shape) - 1))
  occurs = decision < np.expand_dims(probabilities, leading)
  return occurs, xp.stack(others, axis=-1)


def between(u: Any, low: Any, high: Any) -> Any:
  """Maps random numbers from [0, 1) into [low, high)."""
  return low + u * (high - low)


def _limited(xp: Any, length: Any, most: Any) -> Any:
  """Returns a length of at least 1 and at most `most`."""
  return xp.minimum(xp.maximum(length, 1.0), most)
