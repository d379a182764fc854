"""Decoded images in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
  """Decoded images and their labels.

  Attributes:
    pixels: [N, H, W, 1 or 3] uint8; smaller images stand at the top left, with
      zeros beside them.
    sizes: [N, 2] int32, height and width of each image.
    labels: [N] int32, -1 where unknown; [N, classes] of 0 and 1 in a multi-label
      data set.
  """

  pixels: np.ndarray
  sizes: np.ndarray
  labels: np.ndarray


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
