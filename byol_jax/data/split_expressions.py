"""Split expressions like `train[:10%]+test`, with the meaning that tfds gives them."""

import re
from collections.abc import Mapping

from byol_jax import errors

_PART = re.compile(
  r"(?P<name>\w+)(\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?"
)


def ranges(
  expression: str, sizes: Mapping[str, int], data_set: str
) -> list[tuple[str, range]]:
  """Returns the slices that an expression names, in its order.

  Args:
    expression: names of splits, with slices by number or percent, joined by +.
    sizes: the number of examples of each split.
    data_set: its name, for messages.

  Raises:
    UserError: if it is no such expression, there is no such split, or a slice is
      not in it.
  """
  found = []
  for part in expression.split("+"):
    match = _PART.fullmatch(part.strip())
    if not match or match["name"] not in sizes:
      raise errors.unknown_name(
        f"split of {data_set}", expression, sorted(sizes)
      )
    size = sizes[match["name"]]
    first = _index(match["first"] or "0", size)
    last = _index(match["last"], size) if match["last"] else size
    if not 0 <= first <= last <= size:
      raise errors.UserError(
        f"split {part.strip()!r} of {data_set} names no part of its {size}"
        " examples; use bounds within it, the lower one first."
      )
    found.append((match["name"], range(first, last)))
  return found


def _index(text: str, size: int) -> int:
  """Returns the index that a bound of a slice means."""
  number = int(text.rstrip("%"))
  if text.endswith("%"):
    number = round(number * size / 100)
  return number + size if text.startswith("-") else number
