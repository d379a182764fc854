"""Computes the channel statistics that images are normalised with."""

from collections.abc import Sequence

import numpy as np

from byol_jax.augment import spec
from byol_jax.data.registry import Statistics

# The smallest standard deviation that is reported. Views are divided by it, so
# a channel that is constant must not give 0.
_MIN_STD = 1e-3


def channel_moments(pixels: np.ndarray, stride: int = 1) -> np.ndarray:
  """Returns the first two moments of each channel of one image.

  Args:
    pixels: uint8 or uint16 [H, W, C].
    stride: distance of the rows and columns that are read. Neighbouring pixels
      of a photo are alike, so 4 is exact enough and 16 times as fast as 1.
      Images with a side below twice the stride are read whole.

  Returns:
    float64 [2, C]: the means of the channels, scaled to [0, 1], and the means
    of their squares.
  """
  if min(pixels.shape[:2]) >= 2 * stride:
    pixels = pixels[::stride, ::stride]
  values = pixels.reshape(-1, pixels.shape[-1]) / spec.white(pixels.dtype)
  return np.stack([values.mean(axis=0), np.square(values).mean(axis=0)])


def summarize(
  moments: Sequence[np.ndarray], sides: Sequence[int]
) -> Statistics:
  """Returns the statistics of a set of images, in which each image counts once.

  Args:
    moments: `channel_moments` of the images that the network trains on.
    sides: short sides, pixels, of all images whose size matters.

  Returns:
    Mean and standard deviation over all pixels, rounded to four decimals, the
    standard deviation at least 0.001; and the median short side.
  """
  mean, square = np.mean(moments, axis=0)
  std = np.sqrt(np.maximum(square - np.square(mean), _MIN_STD**2))
  return Statistics(
    tuple(mean.round(4).tolist()),
    tuple(std.round(4).tolist()),
    int(np.median(sides)),
  )
