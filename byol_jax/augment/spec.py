"""What a random view is, whichever framework makes it; numbers and names only.

The operations, their order and their ranges are those of Grill et al. 2020
(arXiv 2006.07733v3), appendix B, with the details of deepmind-research/byol
(utils/augmentations.py, utils/dataset.py).
"""

import dataclasses


@dataclasses.dataclass(slots=True)
class Crop:
  """How a random crop is drawn; ranges are (low, high)."""

  crop_area: tuple[float, float] = (0.08, 1.0)  # Fraction, drawn uniformly.
  crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # W / H, log-uniformly.
  flip_prob: float = 0.5


@dataclasses.dataclass(slots=True)
class View(Crop):
  """How a view is drawn; the defaults are the first view's ([P] table 6)."""

  jitter_prob: float = 0.8  # One draw for the four colour operations.
  brightness: float = 0.4  # Added: U(-b, b) on images in [0, 1].
  contrast: float = 0.4  # Factor U(1 - c, 1 + c) about each channel's mean.
  saturation: float = 0.2  # Factor U(1 - s, 1 + s) on the S of HSV.
  hue: float = 0.1  # Shift U(-h, h), in turns of the colour circle.
  grayscale_prob: float = 0.2
  blur_prob: float = 1.0
  blur_sigma: tuple[float, float] = (0.1, 2.0)  # Pixels.
  solarize_prob: float = 0.0
