"""Values as arrays of bytes, for other processes of the run; without pickle.

A pickle runs whatever code its sender likes, and whoever reaches a run's port can
send one. What is read here can only become text, numbers, arrays and containers.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

_CONTAINERS = {"dict": dict, "list": list, "tuple": tuple}


def pack(value: Any) -> list[np.ndarray]:
  """Returns a value as JSON text and the contents of its arrays.

  Args:
    value: text, number, bool, None or array, or a dict, list, tuple or
      NamedTuple of these. JAX arrays and NumPy scalars become NumPy arrays.

  Returns:
    At least one [n] uint8.

  Raises:
    TypeError: if the value holds anything else.
  """
  arrays: list[np.ndarray] = []
  text = json.dumps(_described(jax.device_get(value), arrays))
  return [
    np.frombuffer(text.encode(), np.uint8),
    *(np.ravel(array).view(np.uint8) for array in arrays),
  ]


def unpack(parts: Sequence[np.ndarray]) -> Any:
  """Returns the value that `pack` was given.

  Raises:
    ValueError: if it contains a class that is not a NamedTuple of a module that
      this process has loaded.
  """
  text, *contents = parts
  return _restored(json.loads(text.tobytes()), contents)


def _described(value: Any, arrays: list[np.ndarray]) -> Any:
  """Returns a value as JSON, and appends its arrays to a list."""

  def described(children: Iterable[Any]) -> list[Any]:
    return [_described(child, arrays) for child in children]

  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, np.ndarray | np.generic):
    arrays.append(np.asarray(value))
    return ["array", len(arrays) - 1, value.dtype.name, value.shape]
  if isinstance(value, dict):
    return ["dict", *described(value.items())]
  if isinstance(value, list):
    return ["list", *described(value)]
  if type(value) is tuple:
    return ["tuple", *described(value)]
  if isinstance(value, tuple) and hasattr(value, "_fields"):
    cls = type(value)
    return [f"{cls.__module__}:{cls.__name__}", *described(value)]
  raise TypeError(f"{type(value)} cannot be sent to other processes.")


def _restored(described: Any, contents: Sequence[np.ndarray]) -> Any:
  """Returns the value that `_described` was given."""
  if not isinstance(described, list):
    return described
  form, *rest = described
  if form == "array":
    index, dtype, shape = rest
    return contents[index].view(np.dtype(dtype)).reshape(shape)
  children = [_restored(child, contents) for child in rest]
  if form in _CONTAINERS:
    return _CONTAINERS[form](children)
  return _named_tuple(form)(*children)


def _named_tuple(name: str) -> type[Any]:
  """Returns the NamedTuple `module:class`; imports nothing to find it."""
  module, _, class_name = name.partition(":")
  cls = getattr(sys.modules.get(module), class_name, None)
  if not (
    isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")
  ):
    raise ValueError(f"{name} is not a NamedTuple of a loaded module.")
  return cls
