"""Reads arrays from pickles of other programs without running their code.

A pickle is a program that builds objects. `read` executes the steps that build
numbers, texts, tuples, lists and dictionaries, and calls only the functions that
its caller gives it for the names in the file. It imports nothing that a file names.
Its memory is bounded by the size of the file and by `_MOST_STEPS`.
"""

import math
import mmap
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Globals = Mapping[str, Callable[..., Any]]

_MARK = object()

# Our choice: ten times the steps of a ResNet-200 with target and momentum.
_MOST_STEPS = 2_500_000
_MOST_AXES = 32  # NumPy's own limit until version 2.

# The types of arrays that are read; in other types, NumPy may hold objects.
_DTYPES = ("f2", "f4", "f8", "i4", "i8", "u4")

# Steps that push the value that stands in the file.
_VALUES = (
  "BINBYTES",
  "BINBYTES8",
  "BINFLOAT",
  "BININT",
  "BININT1",
  "BININT2",
  "BINSTRING",
  "BINUNICODE",
  "BINUNICODE8",
  "LONG1",
  "SHORT_BINBYTES",
  "SHORT_BINSTRING",
  "SHORT_BINUNICODE",
)
_CONSTANTS: Mapping[str, Any] = {
  "NONE": None,
  "NEWTRUE": True,
  "NEWFALSE": False,
  "EMPTY_TUPLE": (),
  "MARK": _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(Exception):
  """A file is damaged, or asks for what is not allowed; the message says why."""


class Global:
  """A function that a file may call, under the name that it has there."""

  def __init__(self, name: str, call: Callable[..., Any]):
    self.name = name
    self.call = call


class Dict(dict):
  """A dictionary of a class of its own, such as an `OrderedDict`.

  It drops the attributes that the file gives it beside its items.
  """

  def __init__(self, *items: Any):
    if not all(isinstance(x, dict) for x in items):
      raise RefusedError("it makes a dictionary of something else")
    super().__init__(*items)

  def build(self, state: Any) -> None:
    """Drops the attributes."""


class Dtype:
  """The type of an array, `numpy.dtype` in files."""

  def __init__(self, name: str, *unused: Any):
    if name not in _DTYPES:
      raise RefusedError(f"it holds an array of type {str(name)[:20]!r}")
    self.value = np.dtype(name)

  def build(self, state: Any) -> None:
    """Takes the byte order."""
    self.value = self.value.newbyteorder(state[1])


class Array:
  """An array, which gets its contents in a second step.

  Attributes:
    value: the contents; None until then.
  """

  def __init__(self, *unused: Any):
    self.value: np.ndarray | None = None

  def build(self, state: Any) -> None:
    """Takes shape, type, order and bytes, as `numpy.ndarray.__reduce__` gives."""
    *_, shape, dtype, is_fortran, data = state
    if len(shape) > _MOST_AXES or any(
      type(size) is not int or size < 0 for size in shape
    ):
      raise RefusedError(f"it holds an array of shape {str(shape)[:80]}")
    size = math.prod(shape) * dtype.value.itemsize
    if size != len(data):
      raise RefusedError(
        f"it holds {len(data)} bytes for an array of shape {shape}, which needs"
        f" {size}"
      )
    flat = np.frombuffer(_bytes_of(data), dtype.value)
    self.value = flat.reshape(shape, order="F" if is_fortran else "C")


def _bytes_of(data: Any, *encoding: Any) -> bytes:
  """Returns bytes, which old pickles hold as texts of these characters."""
  return data.encode("latin1") if isinstance(data, str) else data


def filled_array(
  make: Global, args: tuple[Any, ...], state: Any, *unused: Any
) -> Array:
  """Returns an array from its two steps in one, as dill and JAX write it."""
  array = make.call(*args)
  array.build(state)
  return array


def scalar(dtype: Dtype, data: Any) -> Array:
  """Returns a NumPy scalar as an array of shape ()."""
  array = Array()
  array.build(((), dtype, False, _bytes_of(data)))
  return array


# What NumPy writes; the functions are its own only by name.
NUMPY_GLOBALS: Globals = {
  "_codecs.encode": _bytes_of,
  "__builtin__.bytes": lambda: b"",  # The bytes of an empty array.
  "numpy.dtype": Dtype,
  "numpy.ndarray": Array,
  "numpy.core.multiarray._reconstruct": Array,
  "numpy._core.multiarray._reconstruct": Array,
  "numpy.core.multiarray.scalar": scalar,
  "numpy._core.multiarray.scalar": scalar,
}


def read(
  file: bytes | mmap.mmap,
  allowed: Globals,
  load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Returns the object in a pickle.

  Args:
    file: at the start of the pickle; a file in memory is left at its end.
    allowed: functions by the names that the file may use, as module.name. What
      they return may have a method `build(state)`, for the step that sets the
      state of an object.
    load_persistent: maps what the file calls a persistent id to an object.

  Raises:
    RefusedError: the file is damaged, or uses another name or another step.
  """
  machine = _Machine(allowed, load_persistent)
  try:
    for count, (opcode, value, _) in enumerate(
      pickletools.genops(file)  # type: ignore[arg-type]
    ):
      if count == _MOST_STEPS:
        raise RefusedError(f"it has more than {_MOST_STEPS} steps")
      machine.step(opcode.name, value)
    (result,) = machine.stack
  except RefusedError:
    raise
  # Depends on where it is damaged.
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    text = str(error).split("\n")[0][:200]
    raise RefusedError(f"it is damaged or cut off ({text})") from error
  return result


class _Machine:
  """The stack and the memory of a pickle that is being read."""

  def __init__(
    self, allowed: Globals, load_persistent: Callable[[Any], Any] | None
  ):
    self.stack: list[Any] = []
    self._memory: dict[int, Any] = {}
    self._allowed = allowed
    self._load_persistent = load_persistent

  def step(self, name: str, value: Any) -> None:
    """Executes one step, `value` being what stands with it in the file."""
    if name in _VALUES:
      self.stack.append(value)
    elif name in _CONSTANTS:
      self.stack.append(_CONSTANTS[name])
    elif name in _TUPLES:
      self.stack.append(tuple(self._pop(_TUPLES[name])))
    elif name in ("BINGET", "LONG_BINGET"):
      self.stack.append(self._memory[value])
    elif name in ("BINPUT", "LONG_BINPUT"):
      self._memory[value] = self.stack[-1]
    elif name in _STEPS:
      _STEPS[name](self, value)
    elif name not in ("PROTO", "FRAME", "STOP"):
      raise RefusedError(f"it uses the step {name}, which arrays do not need")

  def push_global(self, name: str) -> None:
    """Pushes the function for a name, module and name in one."""
    if name not in self._allowed:
      shown = ascii(name)[1:-1][:100]
      raise RefusedError(f"it asks for {shown}, which arrays do not need")
    self.stack.append(Global(name, self._allowed[name]))

  def push_two_part_global(self) -> None:
    """Pushes the function for a module and a name on the stack."""
    module, name = self._pop(2)
    self.push_global(f"{module}.{name}")

  def call(self) -> None:
    """Replaces a function and its arguments by the result."""
    function, args = self._pop(2)
    if not isinstance(function, Global) or not isinstance(args, tuple):
      raise RefusedError("it calls something that is no function")
    self.stack.append(function.call(*args))

  def build(self) -> None:
    """Gives the object below the top its state, which is on the top."""
    (state,) = self._pop(1)
    if not isinstance(self.stack[-1], Array | Dict | Dtype):
      raise RefusedError("it changes something that is no array")
    self.stack[-1].build(state)

  def push_persistent(self) -> None:
    """Replaces a persistent id by its object."""
    if self._load_persistent is None:
      raise RefusedError("it refers to another file")
    self.stack.append(self._load_persistent(*self._pop(1)))

  def append(self, items: list[Any]) -> None:
    """Adds items to the list on the top."""
    if type(self.stack[-1]) is not list:
      raise RefusedError("it appends to something that is no list")
    self.stack[-1].extend(items)

  def update(self, items: list[Any]) -> None:
    """Adds keys and values, in turn, to the dictionary on the top."""
    if not isinstance(self.stack[-1], dict):
      raise RefusedError("it sets items of something that is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
      # To hash nested tuples could take all of the stack.
      if type(key) not in (str, int):
        raise RefusedError(f"it has a key of type {type(key).__name__}")
      self.stack[-1][key] = value

  def pop_to_mark(self) -> list[Any]:
    """Removes and returns all down to the latest mark."""
    items = []
    while (item := self.stack.pop()) is not _MARK:
      items.append(item)
    return items[::-1]

  def memorise(self) -> None:
    """Keeps what is on the top under the next number."""
    self._memory[len(self._memory)] = self.stack[-1]

  def _pop(self, count: int) -> list[Any]:
    if len(self.stack) < count:
      raise RefusedError("it is damaged or cut off (too few values)")
    items = self.stack[len(self.stack) - count :]
    del self.stack[len(self.stack) - count :]
    return items


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
  "EMPTY_DICT": lambda m, _: m.stack.append({}),
  "EMPTY_LIST": lambda m, _: m.stack.append([]),
  "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
  "APPEND": lambda m, _: m.append([m.stack.pop()]),
  "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
  "SETITEM": lambda m, _: m.update([m.stack.pop(-2), m.stack.pop()]),
  "SETITEMS": lambda m, _: m.update(m.pop_to_mark()),
  "MEMOIZE": lambda m, _: m.memorise(),
  "GLOBAL": lambda m, name: m.push_global(name.replace(" ", ".", 1)),
  "STACK_GLOBAL": lambda m, _: m.push_two_part_global(),
  "REDUCE": lambda m, _: m.call(),
  "NEWOBJ": lambda m, _: m.call(),
  "BUILD": lambda m, _: m.build(),
  "BINPERSID": lambda m, _: m.push_persistent(),
}
