"""Reads the arrays in a file of `torch.save`, without torch and its pickled code."""

import math
import mmap
import os
import stat
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from byol_jax import errors
from byol_jax.interop import pickles

Arrays = dict[str, np.ndarray]

# Where a training loop keeps the arrays of its model among other things.
_MODEL_KEYS = ("state_dict", "model")

_DTYPES = {
  "torch.FloatStorage": np.dtype("<f4"),
  "torch.DoubleStorage": np.dtype("<f8"),
  "torch.HalfStorage": np.dtype("<f2"),
  "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "torch.LongStorage": np.dtype("<i8"),
  "torch.IntStorage": np.dtype("<i4"),
}
# The first of the pickles in a file of torch before version 1.6, and of those
# files that torchvision still offers (torch/serialization.py).
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


class _Storage(NamedTuple):
  """Where the numbers of tensors are."""

  key: str
  dtype: np.dtype
  size: int


class _Tensor(NamedTuple):
  """A tensor as a part of a storage; all but `storage` in numbers."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _storage(identity: Any) -> _Storage:
  """Returns what a persistent id describes."""
  _, kind, key, _, size, *_ = identity
  if kind.name not in _DTYPES or not isinstance(key, str):
    raise pickles.RefusedError("it has a storage of an unknown type")
  return _Storage(key, _DTYPES[kind.name], int(size))


def _tensor(
  storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any
) -> _Tensor:
  """Returns a tensor; `UserError` if it is no part of its storage."""
  numbers = (offset, *shape, *strides)
  if not isinstance(storage, _Storage) or any(
    type(x) is not int or x < 0 for x in numbers
  ):
    raise pickles.RefusedError("it has a tensor that is no part of a storage")
  last = offset + sum(
    (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
  )
  count = math.prod(shape)
  if not count:  # Its place does not matter, and may be anywhere.
    return _Tensor(storage, 0, shape, (0,) * len(shape))
  if max(last + 1, count) > storage.size:
    raise pickles.RefusedError(
      "it has a tensor that is larger than its storage"
    )
  return _Tensor(storage, offset, shape, strides)


def _no_function(*unused: Any) -> None:
  raise pickles.RefusedError("it calls a type")


_GLOBALS: pickles.Globals = {
  "collections.OrderedDict": pickles.Dict,
  "torch._utils._rebuild_tensor": _tensor,
  "torch._utils._rebuild_tensor_v2": _tensor,
  "torch._utils._rebuild_parameter": lambda tensor, *unused: tensor,
  **dict.fromkeys(_DTYPES, _no_function),
}


def read(path: str | os.PathLike[str]) -> Arrays:
  """Returns the arrays of a model by their names.

  Args:
    path: of a file with a `state_dict`, alone or under the key state_dict or model.

  Raises:
    UserError: if the file cannot be read, holds no arrays, or asks for anything
      that arrays do not need.
  """
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):  # A pipe would make us wait.
      raise pickles.RefusedError("it is no regular file")
    with open(path, "rb") as file:
      if file.read(4) == b"PK\x03\x04":
        return _read_zip(file)
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        return _read_legacy(contents)
  except (
    EOFError,
    OSError,
    ValueError,  # An empty file.
    RuntimeError,  # An encrypted one.
    pickles.RefusedError,
    zipfile.BadZipFile,
  ) as error:
    raise errors.UserError(
      f"{path} cannot be read as a file of torch.save: {error}; give one with the"
      " state_dict of a ResNet, such as one of torchvision."
    ) from error


def _read_zip(file: BinaryIO) -> Arrays:
  with zipfile.ZipFile(file) as archive:
    members = {member.filename: member for member in archive.infolist()}
    total = sum(member.file_size for member in members.values())
    if total > os.fstat(file.fileno()).st_size or any(
      member.compress_type != zipfile.ZIP_STORED for member in members.values()
    ):
      raise pickles.RefusedError("its parts would be larger than the file")
    pickled = [name for name in members if name.endswith("/data.pkl")]
    if len(pickled) != 1:
      raise pickles.RefusedError("it holds no data.pkl")
    folder = pickled[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"  # Since torch 2.1.
    if order in members and archive.read(order) != b"little":
      raise pickles.RefusedError("its numbers are big-endian")
    found = pickles.read(archive.read(pickled[0]), _GLOBALS, _storage)

    def load(storage: _Storage) -> bytes:
      name = f"{folder}data/{storage.key}"
      if name not in members:
        raise pickles.RefusedError(f"it holds no {ascii(name)[:100]}")
      return archive.read(name)

    return _arrays(found, load)


def _read_legacy(file: mmap.mmap) -> Arrays:
  if pickles.read(file, {}) != _MAGIC_NUMBER:
    raise pickles.RefusedError("it has another format")
  pickles.read(file, {})  # The version of the format: there is only one.
  system = pickles.read(file, {})
  if not isinstance(system, dict) or system.get("little_endian") is not True:
    raise pickles.RefusedError("its numbers are not little-endian")
  storages: dict[str, _Storage] = {}

  def remember(identity: Any) -> _Storage:
    storage = _storage(identity)
    return storages.setdefault(storage.key, storage)

  found = pickles.read(file, _GLOBALS, remember)
  contents = {}
  keys = pickles.read(file, {})
  for key in keys if isinstance(keys, list) else ():
    size = int.from_bytes(file.read(8), "little")
    if not isinstance(key, str) or key not in storages or size > len(file):
      raise pickles.RefusedError("it holds numbers of no tensor")
    contents[key] = file.read(size * storages[key].dtype.itemsize)
  return _arrays(found, lambda storage: contents.get(storage.key, b""))


def _tensors(found: Any) -> dict[str, _Tensor]:
  """Returns the tensors of the model in what a file holds."""
  for key in _MODEL_KEYS:
    if isinstance(found, dict) and isinstance(found.get(key), dict):
      found = found[key]
  tensors = found if isinstance(found, dict) else {}
  if not tensors or not all(isinstance(x, _Tensor) for x in tensors.values()):
    raise pickles.RefusedError("it holds something else than named tensors")
  return tensors


def _arrays(found: Any, load: Callable[[_Storage], bytes]) -> Arrays:
  """Returns the arrays of a model, whose storages are read when they are needed."""
  arrays = {}
  for name, tensor in _tensors(found).items():
    storage = tensor.storage
    contents = load(storage)
    itemsize = storage.dtype.itemsize
    if len(contents) != storage.size * itemsize:
      raise pickles.RefusedError(f"it is cut off in {ascii(name)[:100]}")
    numbers = np.frombuffer(contents, storage.dtype)
    arrays[str(name)] = np.lib.stride_tricks.as_strided(
      numbers[tensor.offset :],
      tensor.shape,
      [stride * itemsize for stride in tensor.strides],
    )
  return arrays
