"""Operations that are off by default, and the place for your own, in any framework.

An operation takes the module that computes, `tensorflow` on the host and `jax.numpy`
on the device, so it uses only what both spell alike. It comes after the operations of
`spec.OPS`, with probability `View.<name>_prob` if the view has such a field, and as
`View.extra` says if not. Its random numbers are drawn apart from those of all others.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from byol_jax import errors

Operation = Callable[[Any, Any, Any], Any]


def _vertical_flip(xp: Any, image: Any, u: Any) -> Any:
  """Swaps top and bottom."""
  del xp, u
  return image[::-1]


def _rotate90(xp: Any, image: Any, u: Any) -> Any:
  """Turns by one, two or three quarters, each as likely."""
  transposed = xp.transpose(image, (1, 0, 2))
  return xp.where(
    u[0] < 1 / 3,
    transposed[::-1],
    xp.where(u[0] < 2 / 3, image[::-1, ::-1], transposed[:, ::-1]),
  )


# The most that `_slant` shears rows by, and turns by, in pixels a pixel. Our choice, for
# digits; docs/results.md#quickstart has what it gave.
_SLANT, _TURN = 0.4, 0.25


def _slant(xp: Any, image: Any, u: Any) -> Any:
  """Slants and turns a little, as handwriting differs.

  Its memory grows with the cube of the side: it is for images of up to about 64
  pixels.
  """
  turn, slant = _TURN * (2 * u[0] - 1), _SLANT * (2 * u[1] - 1)
  image = _sheared(xp, image, slant - turn)
  image = _sheared(xp, xp.transpose(image, (1, 0, 2)), turn)
  return xp.transpose(image, (1, 0, 2))


def _sheared(xp: Any, image: Any, amount: Any) -> Any:
  """Shifts each row by `amount` pixels more than the one above it.

  The middle stays. Between pixels, values are interpolated, and borders repeat.
  """
  rows, columns = (np.arange(n, dtype=np.float32) for n in image.shape[:2])
  position = columns[None, :] + amount * (rows - rows.mean())[:, None]
  position = xp.maximum(xp.minimum(position, columns[-1]), 0.0)
  distance = xp.abs(position[:, :, None] - columns[None, None, :])
  weights = xp.maximum(1 - distance, 0.0)
  return xp.einsum("yxk,ykc->yxc", weights, image)


# By name: from the module that computes, an image [H, W, C] in [0, 1] and the random
# numbers [spec.EXTRA_NUMBERS] in [0, 1) to an image of the same shape, which is clipped
# to [0, 1] afterwards.
EXTRA_OPS: dict[str, Operation] = {
  "vertical_flip": _vertical_flip,
  "rotate90": _rotate90,
  "slant": _slant,
}


def check(names: Iterable[str]) -> None:
  """Raises `UserError` for the first name that is not in `EXTRA_OPS`."""
  for name in names:
    if name not in EXTRA_OPS:
      raise errors.unknown_name("augment.view*.extra", name, EXTRA_OPS)
