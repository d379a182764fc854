"""Reads the checkpoints that DeepMind's code of BYOL wrote, without that code.

These are the published files, such as pretrain_res50x1.pkl, and those of your own
runs of deepmind-research/byol. Its parameter tree is ours.
"""

import mmap
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.interop import pickles

# By module and name; the leaves are NumPy arrays.
Tree = Mapping[str, Mapping[str, Any]]


class Checkpoint(NamedTuple):
  """The training state of the reference.

  Attributes:
    step: updates made; of a linear evaluation, the updates of its classifier.
    online_params: {module: {name: array}}.
    online_state: running batch-norm statistics.
    target_params: None in the checkpoint of a linear evaluation, which has no
      target.
    target_state: likewise.
    momentum: of LARS, like `online_params`; None if there is none.
  """

  step: int
  online_params: Tree
  online_state: Tree
  target_params: Tree | None = None
  target_state: Tree | None = None
  momentum: Tree | None = None


def _named_tuple(
  name: str, fields: tuple[str, ...], *unused: Any
) -> pickles.Global:
  """Returns what makes dictionaries of the fields of a named tuple."""
  if not all(isinstance(field, str) for field in fields):
    raise pickles.RefusedError("it has a field whose name is no text")
  return pickles.Global(
    name, lambda *values: dict(zip(fields, values, strict=True))
  )


# Written by dill with NumPy 1 or 2, Haiku and JAX since 2020.
_GLOBALS: pickles.Globals = {
  **pickles.NUMPY_GLOBALS,
  "collections.OrderedDict": pickles.Dict,
  "dill._dill._create_array": pickles.filled_array,
  "dill._dill._create_namedtuple": _named_tuple,
  "haiku._src.data_structures.FlatMap": pickles.Dict,
  "haiku._src.data_structures.FlatMapping": pickles.Dict,
  "haiku._src.data_structures.frozendict": pickles.Dict,
  "jax._src.array._reconstruct_array": pickles.filled_array,
  "jax._src.device_array.reconstruct_device_array": pickles.filled_array,
}


def is_reference_file(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is named as the reference names its checkpoints."""
  return str(path).endswith((".pkl", ".pickle"))


def read(path: str | os.PathLike[str]) -> Checkpoint:
  """Returns the contents of a checkpoint.

  Raises:
    UserError: if the file cannot be read, is no checkpoint of the reference, or
      asks for anything that such a checkpoint does not need.
  """
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):  # A pipe would make us wait.
      raise pickles.RefusedError("it is no regular file")
    with (
      open(path, "rb") as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents,
    ):
      return _checkpoint(pickles.read(contents, _GLOBALS))
  # ValueError: an empty file.
  except (OSError, ValueError, pickles.RefusedError) as error:
    raise refusal(path, error) from error


def refusal(path: object, reason: object) -> errors.UserError:
  """Returns the error for a file."""
  return errors.UserError(
    f"{path} cannot be read as a checkpoint of deepmind-research/byol: {reason};"
    " give one of its .pkl files, or download it again."
  )


def _checkpoint(contents: Any) -> Checkpoint:
  """Returns a checkpoint from what its pickle holds."""
  found = _item(contents, "experiment_state")
  step = _step(_item(contents, "step"))
  if isinstance(found, dict) and "backbone_params" in found:
    return Checkpoint(
      step, _tree(found, "backbone_params"), _tree(found, "backbone_state")
    )
  trees = {
    name: _tree(found, name)
    for name in (
      "online_params",
      "online_state",
      "target_params",
      "target_state",
    )
  }
  return Checkpoint(step, **trees, momentum=_momentum(found))


def _step(found: Any) -> int:
  """Returns the number of updates, which may be an array."""
  value: Any = found.value if isinstance(found, pickles.Array) else found
  is_number = type(value) is int or (
    isinstance(value, np.ndarray)
    and value.shape == ()
    and value.dtype.kind in "iu"
  )
  if not is_number or not 0 <= value < 2**31:
    raise pickles.RefusedError("its step is no number from 0 to 2**31 - 1")
  return int(value)


def _momentum(found: Any) -> Tree | None:
  """Returns the momentum, which one of the parts of the optimizer's state holds."""
  parts = found.get("opt_state")
  for part in parts if isinstance(parts, tuple | list) else (parts,):
    if isinstance(part, dict) and "mu" in part:
      return _tree(part, "mu")
  return None


def _item(found: Any, name: str) -> Any:
  if not isinstance(found, dict) or name not in found:
    raise pickles.RefusedError(f"it holds no {name}")
  return found[name]


def _tree(found: Any, name: str) -> Tree:
  """Returns {module: {name: array}}, by the names of modules that we use."""
  tree: dict[str, dict[str, np.ndarray]] = {}
  modules = _item(found, name)
  if not isinstance(modules, dict):
    raise pickles.RefusedError(f"its {name} are no dictionary")
  for module, leaves in modules.items():
    if not isinstance(leaves, dict):
      raise pickles.RefusedError(f"{name}[{module}] is no dictionary")
    # Some versions counted the convolution of the stem.
    ours = re.sub(r"/initial_(conv|batchnorm)_1\b", r"/initial_\1", str(module))
    tree[ours] = {
      str(key): _finite(leaf, f"{name}[{ours}][{key}]")
      for key, leaf in leaves.items()
    }
  return tree


def _finite(leaf: Any, name: str) -> np.ndarray:
  """Returns an array in the types that we train in, after a check."""
  if not isinstance(leaf, pickles.Array) or leaf.value is None:
    raise pickles.RefusedError(f"{name} is no array")
  array = leaf.value
  if not np.isfinite(array).all():
    raise pickles.RefusedError(f"{name} holds NaN or infinity")
  is_float = np.issubdtype(array.dtype, np.floating)
  return array.astype(np.float32 if is_float else np.int32, copy=False)
