"""Arrays that the reference implementation produced, see golden/README.md."""

import gzip
import json
import pathlib

import numpy as np

_FOLDER = pathlib.Path(__file__).parent / "golden"


class Golden:
  """The arrays of one file, single or as {module: {name: array}} trees."""

  def __init__(self, name: str):
    self._arrays = np.load(_FOLDER / f"{name}.npz")

  def __getitem__(self, key: str) -> np.ndarray:
    return self._arrays[key]

  def keys(self, prefix: str) -> list[str]:
    return [key for key in self._arrays.files if key.startswith(prefix)]

  def json(self, key: str):
    return json.loads(str(self._arrays[key]))

  def tree(self, prefix: str) -> dict[str, dict[str, np.ndarray]]:
    tree: dict[str, dict[str, np.ndarray]] = {}
    for key in self.keys(prefix + "/"):
      module, name = key.removeprefix(prefix + "/").split("||")
      tree.setdefault(module, {})[name] = self._arrays[key]
    return tree


def param_trees() -> dict:
  with gzip.open(_FOLDER / "resnet_param_trees.json.gz") as f:
    return json.load(f)
