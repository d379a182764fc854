"""Operations that are off by default, and the place for your own, in any framework.

An operation takes the module that computes, `tensorflow` on the host and `jax.numpy`
on the device, so it uses only what both spell alike. It comes after the operations of
`spec.OPS`, with probability `View.<name>_prob` if the view has such a field, and as
`View.extra` says if not. Its random numbers are drawn apart from those of all others.
"""

from collections.abc import Callable, Iterable
from typing import Any

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


# By name: from the module that computes, an image [H, W, C] in [0, 1] and the random
# numbers [spec.EXTRA_NUMBERS] in [0, 1) to an image of the same shape, which is clipped
# to [0, 1] afterwards.
EXTRA_OPS: dict[str, Operation] = {
  "vertical_flip": _vertical_flip,
  "rotate90": _rotate90,
}


def check(names: Iterable[str]) -> None:
  """Raises `UserError` for the first name that is not in `EXTRA_OPS`."""
  for name in names:
    if name not in EXTRA_OPS:
      raise errors.unknown_name("augment.view*.extra", name, EXTRA_OPS)
