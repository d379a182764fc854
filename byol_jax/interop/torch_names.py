"""Our arrays of a ResNet by torchvision's names, and the other way round.

timm's plain ResNets have torchvision's names, too. All three put the stride of a
bottleneck block on its 3x3 convolution. Two things differ: the first shortcut of a
ResNet-18 or -34 is the identity there, where ours projects; and the padding (see
`model.encoder.padding`).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from byol_jax import errors

Arrays = dict[str, np.ndarray]

# Ours and torchvision's names of layers, before the blocks and in a block.
_STEM = {"initial_conv": "conv1", "initial_batchnorm": "bn1"}
_BLOCK = {
  "shortcut_conv": "downsample.0",
  "shortcut_batchnorm": "downsample.1",
  **{f"conv_{i}": f"conv{i + 1}" for i in range(3)},
  **{f"batchnorm_{i}": f"bn{i + 1}" for i in range(3)},
}
_LEAVES = {
  "conv": {"params/w": "weight"},
  "batchnorm": {
    "params/scale": "weight",
    "params/offset": "bias",
    "state/mean_ema/average": "running_mean",
    "state/var_ema/average": "running_var",
  },
}
_OUR_NAME = re.compile(
  r"(?P<kind>params|state)/(?P<root>\w+)/~/"
  r"(?:block_group_(?P<group>\d)/~/block_(?P<block>\d+)/~/)?"
  r"(?P<layer>\w+)/(?:~/)?(?P<leaf>.+)"
)
_THEIR_NAME = re.compile(
  r"(?:layer(?P<group>[1-4])\.(?P<block>\d+)\.)?(?P<layer>.+)\.(?P<leaf>\w+)"
)

# Our choice of the updates behind an imported average: so many that its start at
# zero no longer counts for any usual decay rate (0.9999 ** 2**20 is below 1e-45).
_UPDATES = np.int32(2**20)


class FromTorch(NamedTuple):
  """What `from_torch` makes of torchvision's arrays.

  Attributes:
    arrays: ours, by name.
    left_out: torchvision's names that have no place in an encoder.
    added: our names of the shortcuts that are the identity there.
  """

  arrays: Arrays
  left_out: tuple[str, ...]
  added: tuple[str, ...]


def to_torch(arrays: Mapping[str, np.ndarray]) -> Arrays:
  """Returns a ResNet's arrays by torchvision's names and in its layouts.

  Args:
    arrays: `params/MODULE/NAME` and `state/MODULE/NAME` of the encoder alone, as in
      an encoder file. Convolutions are [rows, columns, inputs, outputs].

  Returns:
    Convolutions as [outputs, inputs, rows, columns], batch norm as [channels].

  Raises:
    UserError: if torchvision's ResNets have no place for an array.
  """
  theirs = {}
  for name, array in arrays.items():
    # How an average came about; torchvision keeps the average only.
    if name.endswith(("_ema/hidden", "_ema/counter")):
      continue
    new = _to_their_name(name)
    if new is None:
      raise errors.UserError(
        f"{name!r} has no place in torchvision's ResNets; choose an encoder with"
        " model.encoder.version=v1."
      )
    is_conv = array.ndim == 4 and name.endswith("/w")
    theirs[new] = array.transpose(3, 2, 0, 1) if is_conv else array.reshape(-1)
  return theirs


def _to_their_name(name: str) -> str | None:
  """Returns torchvision's name of one of our arrays, None if there is none."""
  found = _OUR_NAME.fullmatch(name)
  if found is None:
    return None
  in_block = found["group"] is not None
  layer = (_BLOCK if in_block else _STEM).get(found["layer"])
  leaves = _LEAVES["conv" if "conv" in found["layer"] else "batchnorm"]
  leaf = leaves.get(f"{found['kind']}/{found['leaf']}")
  if layer is None or leaf is None:
    return None
  if in_block:
    layer = f"layer{int(found['group']) + 1}.{found['block']}.{layer}"
  return f"{layer}.{leaf}"


def from_torch(
  arrays: Mapping[str, np.ndarray], root: str, eps: float = 1e-5
) -> FromTorch:
  """Returns the arrays of torchvision's ResNet by our names and in our layouts.

  An identity shortcut becomes a projection, which is the identity as long as batch
  norm uses running statistics. In training it normalises its input.

  Args:
    arrays: torchvision's, with `fc` and `num_batches_tracked` or without.
    root: the module of our encoder, such as `res_net50`.
    eps: of our batch norm.

  Raises:
    UserError: if a name is not of a plain ResNet, or its array not of its rank.
      That no array is missing or of another size is for the caller to check.
  """
  ours: Arrays = {}
  left_out = []
  for name, array in arrays.items():
    if name.startswith("fc.") or name.endswith(".num_batches_tracked"):
      left_out.append(name)
      continue
    place = _to_our_place(name)
    if place is None or array.ndim != (4 if place[1] == "params/w" else 1):
      raise errors.UserError(
        f"{name!r} of shape {array.shape} is not an array of a plain ResNet; give a"
        " ResNet of torchvision or timm, such as resnet50."
      )
    layer, leaf = place
    ours |= _leaves(f"{root}/~/{layer}", leaf, np.asarray(array, np.float32))
  added = _identity_shortcuts(ours, root, eps)
  return FromTorch(ours | added, tuple(left_out), tuple(added))


def _to_our_place(name: str) -> tuple[str, str] | None:
  """Returns our layer below the root, and a key of `_LEAVES`, if there is one."""
  found = _THEIR_NAME.fullmatch(name)
  if found is None:
    return None
  in_block = found["group"] is not None
  layer = _inverse(_BLOCK if in_block else _STEM).get(found["layer"])
  if layer is None:
    return None
  leaves = _LEAVES["conv" if "conv" in layer else "batchnorm"]
  leaf = _inverse(leaves).get(found["leaf"])
  if leaf is None:
    return None
  if in_block:
    group = int(found["group"]) - 1
    layer = f"block_group_{group}/~/block_{found['block']}/~/{layer}"
  return layer, leaf


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
  return {value: key for key, value in names.items()}


def _leaves(module: str, leaf: str, array: np.ndarray) -> Arrays:
  """Returns one of torchvision's arrays as the arrays that we keep for it.

  Args:
    module: our name of the layer.
    leaf: a key of `_LEAVES`.
    array: torchvision's.
  """
  kind, name = leaf.split("/", 1)
  if array.ndim == 4:
    return {f"{kind}/{module}/{name}": array.transpose(2, 3, 1, 0)}
  array = array.reshape(1, 1, 1, -1)
  if kind == "params":
    return {f"{kind}/{module}/{name}": array}
  ema = f"{kind}/{module}/~/{name.removesuffix('average')}"
  return {
    f"{ema}average": array,
    f"{ema}hidden": array,
    f"{ema}counter": np.asarray(_UPDATES),
  }


def _identity_shortcuts(
  ours: Mapping[str, np.ndarray], root: str, eps: float
) -> Arrays:
  """Returns the projections of the groups that begin without one."""
  added: Arrays = {}
  for group in range(4):
    block = f"{root}/~/block_group_{group}/~/block_0/~"
    scale = ours.get(f"params/{block}/batchnorm_0/scale")
    if scale is None or f"params/{block}/shortcut_conv/w" in ours:
      continue
    eye = np.eye(scale.size, dtype=np.float32)
    added[f"params/{block}/shortcut_conv/w"] = eye[None, None]
    for leaf, value in (
      ("params/scale", 1.0),
      ("params/offset", 0.0),
      ("state/mean_ema/average", 0.0),
      ("state/var_ema/average", 1.0 - eps),  # Batch norm adds eps.
    ):
      filled = np.full(scale.size, value, np.float32)
      added |= _leaves(f"{block}/shortcut_batchnorm", leaf, filled)
  return added
