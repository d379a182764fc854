"""Turns random numbers into crops and augmentation parameters, in any framework.

The functions take the module that computes: `tensorflow` on the host, `jax.numpy`
on the device. They use only what both spell alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax.augment import spec

_OFFSETS = {name: i for i, name in enumerate(spec.RANDOM_NUMBERS)}


def crop_numbers(numbers: Any) -> Any:
  """Returns the random numbers [..., 4] of rows that decide the crop."""
  return numbers[..., : len(spec.CROP_NUMBERS)]


class Boxes(NamedTuple):
  """The regions of crops, in whole pixels as float32, [..., V] each."""

  top: Any
  left: Any
  height: Any
  width: Any


def crop_boxes(
  xp: Any, height: Any, width: Any, u: Any, crops: Sequence[spec.Crop]
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
  """
  area_range = np.array([crop.crop_area for crop in crops], np.float32)
  aspect_range = np.log([crop.crop_aspect for crop in crops]).astype(np.float32)
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


def augment_params(
  xp: Any, numbers: Any, view: spec.View, enabled: spec.EnabledOps
) -> spec.AugmentParams:
  """Returns the augmentation parameters that random numbers stand for.

  Args:
    xp: the module that computes.
    numbers: [..., len(RANDOM_NUMBERS)] in [0, 1).
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
  return spec.AugmentParams(
    order=xp.argsort(order),
    amounts=xp.stack(amounts, axis=-1) if count else order,
    sigma=between(number("blur sigma"), *view.blur_sigma),
    **occurs,
  )


def between(u: Any, low: Any, high: Any) -> Any:
  """Maps random numbers from [0, 1) into [low, high)."""
  return low + u * (high - low)


def _limited(xp: Any, length: Any, most: Any) -> Any:
  """Returns a length of at least 1 and at most `most`."""
  return xp.minimum(xp.maximum(length, 1.0), most)
