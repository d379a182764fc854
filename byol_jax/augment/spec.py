"""Specifies random views as numbers and names, free of any framework.

The operations, their order and their ranges are those of Grill et al. 2020
(arXiv 2006.07733v3, [P]), appendix B, with the details of
deepmind-research/byol (utils/augmentations.py, utils/dataset.py).

To add an operation that leaves the views of every seed as they are, add it to
`augment.extra_ops`. To add a colour operation, add a field to `View` and an entry to
`COLOUR_OPS` here and in `augment.colours`. To add an operation of another kind, add its
name to `OPS`, `View` (as `<name>_prob`), `AugmentParams`, `EnabledOps` and the end of
`RANDOM_NUMBERS`, and a step to `apply` in `data.host_ops` and `augment.device_ops`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors


@dataclasses.dataclass(slots=True)
class Crop:
  """How a random crop is drawn; ranges are (low, high)."""

  crop_area: tuple[float, float] = (0.08, 1.0)  # Fraction, drawn uniformly.
  # W / H over that of the view, which is 1 for the paper's squares; log-uniformly.
  crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
  flip_prob: float = 0.5


@dataclasses.dataclass(slots=True)
class View(Crop):
  """How a view is drawn; the defaults are the first view's ([P] table 6)."""

  jitter_prob: float = 0.8  # One draw for all colour operations.
  brightness: float = 0.4  # Added: U(-b, b) on images in [0, 1].
  contrast: float = 0.4  # Factor U(1 - c, 1 + c) about each channel's mean.
  saturation: float = 0.2  # Factor U(1 - s, 1 + s) on the S of HSV.
  hue: float = 0.1  # Shift U(-h, h), in turns of the colour circle.
  grayscale_prob: float = 0.2
  blur_prob: float = 1.0
  blur_sigma: tuple[float, float] = (0.1, 2.0)  # Pixels.
  solarize_prob: float = 0.0
  vertical_flip_prob: float = 0.0
  rotate90_prob: float = 0.0  # By one, two or three quarter turns.
  # Operations of your own, NAME=PROBABILITY, by names in `extra_ops.EXTRA_OPS`.
  extra: tuple[str, ...] = ()


class Views(NamedTuple):
  """Specifies the two views of an image.

  Attributes:
    view1: how the first view is drawn.
    view2: how the second view is drawn.
    image_shape: height and width of a view, pixels.
    channels: 3, 1 for grey views, or those of other images, which have no colours
      (`without_colours`).
    placement: where the operations after the crop happen: host or device.
  """

  view1: View
  view2: View
  image_shape: tuple[int, int]
  channels: int = 3
  placement: str = "host"


class ColourOp(NamedTuple):
  """The amounts of a colour operation.

  Attributes:
    neutral: amount that changes nothing. Amounts are drawn uniformly from
      [neutral - strength, neutral + strength]. The strength is the view's field
      of the same name as the operation.
    most: largest strength that a view may ask for.
  """

  neutral: float
  most: float


# All colour operations. A new entry changes the random numbers, and with them
# the views, that belong to a seed.
COLOUR_OPS: dict[str, ColourOp] = {
  "brightness": ColourOp(neutral=0.0, most=1),
  "contrast": ColourOp(neutral=1.0, most=1),
  "saturation": ColourOp(neutral=1.0, most=1),
  "hue": ColourOp(neutral=0.0, most=0.5),
}

# The operations that happen with probability `View.<name>_prob`. Jitter is all
# colour operations in random order.
OPS = ("flip", "jitter", "grayscale", "blur", "solarize")

# The uniform random numbers in [0, 1) that a view takes, in the order in which
# they are drawn. Colour operations are ordered by the first `order` numbers, as
# many as there are enabled colour operations.
CROP_NUMBERS = ("area", "aspect", "top", "left")
RANDOM_NUMBERS = (
  *CROP_NUMBERS,
  *(f"{name} amount" for name in COLOUR_OPS),
  *(f"order {i}" for i in range(len(COLOUR_OPS))),
  "flip",
  "jitter",
  "grayscale",
  "blur",
  "blur sigma",
  "solarize",
)

# The random numbers that each operation of `extra_ops` takes: our choice, as many as
# say where and how large a box is. They are drawn after all of `RANDOM_NUMBERS` of both
# views, and only for enabled operations, so that a seed keeps its views.
EXTRA_NUMBERS = 4


class AugmentParams(NamedTuple):
  """Holds the augmentation parameters sampled for a crop, or for N crops.

  Leaves are arrays or tensors of a framework, with a leading axis of N for
  several crops. J is the number of enabled colour operations, K that of `extra_ops`;
  where it is 0, their fields are (), since arrays of size 0 cannot be divided among
  devices.

  Attributes:
    flip: bool, whether to swap left and right.
    jitter: bool, whether to apply the colour operations.
    order: [J] int32, their order, as indices into `EnabledOps.jitter`.
    amounts: [J] float32, their amounts, by the same indices.
    grayscale: bool.
    blur: bool.
    sigma: float32, standard deviation of the blur, pixels.
    solarize: bool.
    extra: [K] bool, whether to apply each of `EnabledOps.extra`.
    extra_numbers: [K, EXTRA_NUMBERS] float32 in [0, 1), what they are given.
  """

  flip: Any
  jitter: Any
  order: Any
  amounts: Any
  grayscale: Any
  blur: Any
  sigma: Any
  solarize: Any
  extra: Any = ()
  extra_numbers: Any = ()


class EnabledOps(NamedTuple):
  """Names the operations that some view can ask for.

  Code for other operations is not compiled. `jitter` lists the colour
  operations, `extra` those of `extra_ops`.
  """

  flip: bool
  jitter: tuple[str, ...]
  grayscale: bool
  blur: bool
  solarize: bool
  extra: tuple[str, ...] = ()


def enabled_ops(*views: View) -> EnabledOps:
  """Returns the operations that at least one of the views can ask for."""

  def is_enabled(name):
    return any(getattr(view, f"{name}_prob") for view in views)

  def is_used(name):
    return any(view.jitter_prob and getattr(view, name) for view in views)

  simple = {name: is_enabled(name) for name in OPS if name != "jitter"}
  jitter = tuple(name for name in COLOUR_OPS if is_used(name))
  extra = {
    name: None  # In the order of the views, each name once.
    for view in views
    for name, probability in extra_probabilities(view).items()
    if probability
  }
  return EnabledOps(jitter=jitter, extra=tuple(extra), **simple)


def extra_probabilities(
  view: View, key: str = "augment.view*"
) -> Mapping[str, float]:
  """Returns the probability of each operation of `extra_ops` that a view names.

  Args:
    view: how a view is drawn.
    key: of the view, for messages.

  Raises:
    UserError: a probability does not lie in [0, 1], or `extra` holds something else
      than NAME=PROBABILITY, or an operation that has a key of its own.
  """
  found = {
    "vertical_flip": view.vertical_flip_prob,
    "rotate90": view.rotate90_prob,
  }
  for name, probability in found.items():
    if not 0 <= probability <= 1:
      raise errors.UserError(
        f"{key}.{name}_prob={probability} must lie in [0, 1]."
      )
  # --config.KEY=A=1,B=1 gives ("A=1,B=1",).
  for entry in filter(None, ",".join(view.extra).split(",")):
    name, _, number = (part.strip() for part in entry.partition("="))
    if name in found:
      raise errors.UserError(
        f"{key}.extra={view.extra} must name each operation once; set"
        f" {key}.{name}_prob for {name!r} if it is there."
      )
    try:
      found[name] = float(number)
    except ValueError:
      found[name] = -1.0
    if not (name and 0 <= found[name] <= 1):
      raise errors.UserError(
        f"{key}.extra={view.extra} must hold NAME=PROBABILITY, such as"
        f" erase=0.5, not {entry!r}."
      )
  return found


def without_colours(view: View) -> View:
  """Returns a view of channels that are not red, green and blue.

  Saturation, hue and grey mean nothing there. All other operations work on each
  channel by itself.
  """
  return dataclasses.replace(view, saturation=0.0, hue=0.0, grayscale_prob=0.0)


def white(dtype: Any) -> int:
  """Returns the value that stands for 1 in pixels of a type.

  It is 65,535 for uint16, and 255 for bytes and for floats that are made of them.
  """
  return 65_535 if dtype == np.uint16 else 255


def blur_radius(image_shape: Sequence[int]) -> int:
  """Returns the taps of the blur on either side of its centre.

  The kernel spans a tenth of the side of an image, of the shorter one if it is not
  square. Below 20 pixels the radius is 0, and blurring changes nothing.
  """
  return int(min(image_shape) / 10 / 2)
