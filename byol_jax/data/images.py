"""Decoded images in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.augment import spec

# Of an array of images: number, height, width and channels.
Shape = tuple[int, int, int, int]


def accept(shape: Shape, itemsize: int) -> None:
  """Lets an array of any shape and of values of so many bytes be made."""


class Images(NamedTuple):
  """Decoded images and their labels.

  Attributes:
    pixels: [N, H, W, C] uint8 or uint16; smaller images stand at the top left, with
      zeros beside them.
    sizes: [N, 2] int32, height and width of each image.
    labels: [N] int32, -1 where unknown; [N, classes] of 0 and 1 in a multi-label
      data set.
  """

  pixels: np.ndarray
  sizes: np.ndarray
  labels: np.ndarray

  @property
  def white(self) -> np.float32:
    """The value that stands for 1; see `spec.white`."""
    return np.float32(spec.white(self.pixels.dtype))


def pack(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Images:
  """Puts images of any sizes into one array.

  Args:
    images: [h, w, channels] uint8 each, at least one.
    labels: of each image.
  """
  sizes = np.array([image.shape[:2] for image in images], np.int32)
  height, width = sizes.max(axis=0)
  shape = (len(images), height, width, images[0].shape[-1])
  pixels = np.zeros(shape, np.uint8)
  for row, image, (h, w) in zip(pixels, images, sizes, strict=True):
    row[:h, :w] = image
  return Images(pixels, sizes, np.array(labels, np.int32))


def in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
  """Returns grey images in three channels, or the luminance of colours.

  The luminance is TensorFlow's of decoding in one channel (libjpeg's weights).

  Raises:
    UserError: if the images are neither grey nor colours, or are to be neither.
  """
  check_channels(pixels.shape[-1], channels)
  if channels == 3:
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))
  luminance = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
  return np.round(luminance)[..., None].astype(pixels.dtype)


def check_channels(found: int, channels: int) -> None:
  """Raises `UserError` if images of `found` channels cannot be had in `channels`."""
  if found != channels and {found, channels} != {1, 3}:
    raise errors.UserError(
      f"data.channels={channels} must be {found}, as the images have {found}"
      f" channels; set --config.data.channels={found} --config.data.mean=()"
      " --config.data.std=()."
    )
