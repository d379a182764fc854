"""Changes of colours, in any framework.

The functions take the module that computes: `tensorflow` on the host, `jax.numpy`
on the device. They work on planes, arrays of one channel, because these vectorise
on CPUs, and value by value, so that compilers fuse them.
"""

from collections.abc import Callable
from typing import Any

Planes = tuple[Any, ...]  # Red, green, blue, or other channels: [H, W] each.
Means = Callable[[], Planes]  # Returns the mean of each plane.


def _brightness(xp: Any, planes: Planes, amount: Any, means: Means) -> Planes:
  """Adds an amount to every value."""
  del xp, means
  return tuple(plane + amount for plane in planes)


def _contrast(xp: Any, planes: Planes, factor: Any, means: Means) -> Planes:
  """Scales the distance of every value from its channel's mean."""
  del xp
  return tuple(
    (plane - mean) * factor + mean
    for plane, mean in zip(planes, means(), strict=True)
  )


def _saturation(xp: Any, planes: Planes, factor: Any, means: Means) -> Planes:
  """Scales the S of HSV, to 1 at most.

  At fixed hue and value, the distance of a channel from the value is
  proportional to S, so the image need not be converted to HSV and back.
  """
  del means
  value, chroma = _value_and_chroma(xp, planes)
  factor = xp.minimum(factor, value / xp.maximum(chroma, 1e-12))
  return tuple(value - factor * (value - plane) for plane in planes)


def _hue(xp: Any, planes: Planes, amount: Any, means: Means) -> Planes:
  """Shifts the H of HSV by an amount in turns of the colour circle."""
  del means
  red, green, blue = planes
  value, chroma = _value_and_chroma(xp, planes)
  scale = 1 / xp.maximum(chroma, 1e-12)
  sixths = xp.where(
    value == red,
    (green - blue) * scale,
    xp.where(
      value == green, (blue - red) * scale + 2, (red - green) * scale + 4
    ),
  )
  sixths += 6 * amount

  def channel(offset: float) -> Any:
    k = sixths + offset
    k -= 6 * xp.floor(k / 6)
    return value - chroma * clip(xp, xp.minimum(k, 4 - k))

  return channel(5.0), channel(3.0), channel(1.0)


def _value_and_chroma(xp: Any, planes: Planes) -> tuple[Any, Any]:
  """Returns the largest channel and its distance from the smallest."""
  red, green, blue = planes
  value = xp.maximum(xp.maximum(red, green), blue)
  return value, value - xp.minimum(xp.minimum(red, green), blue)


# Each name in `spec.COLOUR_OPS`: a function of the module that computes, the planes
# of an image in [0, 1], an amount and the planes' means. Results are clipped to
# [0, 1] afterwards.
COLOUR_OPS: dict[str, Callable[[Any, Planes, Any, Means], Planes]] = {
  "brightness": _brightness,
  "contrast": _contrast,
  "saturation": _saturation,
  "hue": _hue,
}
# The operation that takes the means; of all others the means make no difference.
TAKES_MEANS = "contrast"


def grayscale(planes: Planes) -> Planes:
  """Returns the luminance in all three channels."""
  red, green, blue = planes
  luminance = 0.2989 * red + 0.5870 * green + 0.1140 * blue
  return luminance, luminance, luminance


def solarize(xp: Any, plane: Any) -> Any:
  """Inverts every value of at least one half."""
  return xp.where(plane < 0.5, plane, 1 - plane)


def clip(xp: Any, plane: Any) -> Any:
  """Limits every value to [0, 1]."""
  return xp.minimum(xp.maximum(plane, 0.0), 1.0)
