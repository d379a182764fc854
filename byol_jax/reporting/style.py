"""The style that all pictures share."""

import numpy as np

COLOUR = "#1f5fa8"

SECOND_COLOUR = "#d1742a"

DOTS_PER_INCH = 100


def coloured(image: np.ndarray) -> np.ndarray:
  """[H, W, 3] of an image that may be grey."""
  return np.broadcast_to(image, (*image.shape[:2], 3))
