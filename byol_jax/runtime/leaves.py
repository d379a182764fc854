"""The leaves of pytrees of arrays, by their paths."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def by_path(tree: Any) -> dict[str, Any]:
  """Returns leaves by path, such as `online_params['linear']['w']`."""
  return {
    jax.tree_util.keystr(path).lstrip("."): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def kind(leaf: Any) -> str:
  """Returns the type and the shape of a leaf, such as `float32[3, 4]`."""
  return f"{leaf.dtype}{list(leaf.shape)}"


def checksums(leaves: Mapping[str, np.ndarray]) -> dict[str, str]:
  """Returns checksums of type, shape and bytes by path, 8 hexadecimal digits."""

  def checksum(leaf: np.ndarray) -> int:
    data = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data
    return zlib.crc32(data, zlib.crc32(kind(leaf).encode()))

  return {path: f"{checksum(leaf):08x}" for path, leaf in leaves.items()}
