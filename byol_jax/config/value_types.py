"""What a value must be to have the type of its key, and a size that JAX can hold."""

import typing
from typing import Any

# Whole numbers are int32 in JAX, except for bytes, which only TensorFlow counts,
# in int64, and the seed, which is uint32.
_INT_BITS = {"data.shuffle_bytes": 63, "data.cache_bytes": 63, "seed": 32}
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


def broken_rule(key: str, value: Any, kind: Any) -> str:
  """Returns what a value must be and is not, such as "text"; "" if it is right.

  Args:
    key: of the value, dotted.
    value: of any type.
    kind: the type of the key, from `convert.key_types`.
  """
  if kind in (bool, str):
    is_right = isinstance(value, kind)
    rule = "True or False" if kind is bool else "text"
  elif typing.get_origin(kind) is tuple:
    element = typing.get_args(kind)[0]
    is_right = isinstance(value, list | tuple) and all(
      _is_a(element, item) for item in value
    )
    rule = f"a tuple of {'texts' if element is str else 'finite numbers'}"
  elif kind is float:
    is_right, rule = _is_a(float, value), "a finite number"
  else:
    bits = _INT_BITS.get(key, 31)
    is_unset = value is None and kind is not int
    is_right = is_unset or (type(value) is int and abs(value) < 2**bits)
    rule = f"a whole number below 2**{bits}"
  return "" if is_right else rule


def _is_a(kind: type, value: Any) -> bool:
  """Returns whether a value is text, or a number that float32 can hold."""
  if kind is str:
    return isinstance(value, str)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and abs(value) <= _LARGEST_FLOAT32  # NaN is not.
