"""Trained encoders from every place that pretraining can start from.

These are files of --mode=export, workdirs, checkpoints of deepmind-research/byol,
and ResNets of torchvision and timm.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.interop import (
  architecture,
  encoder_file,
  encoder_settings,
  reference_file,
  torch_names,
  torch_pickle,
)
from byol_jax.models import encoders, networks
from byol_jax.runtime import checkpoints, files
from byol_jax.training import build, saved_settings, workdir_files

Tree = Mapping[str, Mapping[str, Any]]

# The types in safetensors files that NumPy has, bfloat16 by JAX.
_TYPES = ("F16", "BF16", "F32", "F64", "I32", "I64")
# The path of a leaf in our checkpoints.
_LEAF = re.compile(r"online_(params|state)\['(.+)'\]\['(.+)'\]")


class Weights(NamedTuple):
  """An encoder and where it comes from.

  Attributes:
    settings: by key, those that the encoder needs or was trained with.
    params: {module: {name: array}}, of the encoder alone.
    statistics: of batch norm, likewise.
    taken: number of arrays in that place that they come from.
    step: updates that it was trained for; None if the place does not tell.
    left_out: names of arrays in that place that are not of the encoder.
    added: names of arrays of the encoder that are not in that place: projections
      that are the identity, where the encoder there has none.
  """

  settings: Mapping[str, Any]
  params: Tree
  statistics: Tree
  taken: int
  step: int | None = None
  left_out: tuple[str, ...] = ()
  added: tuple[str, ...] = ()


def read(path: str) -> Weights:
  """Returns the encoder in a place.

  Args:
    path: of a workdir, whose newest checkpoint is read; or of a file, whose name
      ends with .pkl (deepmind-research/byol), .pth, .pt or .bin (torch.save) or
      otherwise, for a safetensors file of ours or with torchvision's names.

  Raises:
    UserError: if there is no encoder, it cannot be read, or it is none of those
      that `models.encoders` has.
  """
  place = files.to_path(path)
  if place.is_dir():
    found = _of_workdir(place)
  elif place.suffix == ".pkl":
    found = _of_reference(path)
  elif place.suffix in (".pth", ".pt", ".bin"):
    found = _of_torch(path, torch_pickle.read(path), {})
  else:
    found = _of_safetensors(path)
  config = convert.updated(schema.Config(), found.settings)
  try:
    encoder = build.build_encoder(config)
    architecture.check(encoder, config, (found.params, found.statistics))
  except errors.UserError as error:
    raise _refusal(path, error) from error
  return found


def usual_settings(padding: str, channels: int) -> dict[str, Any]:
  """Returns what the reference and torchvision compute with, whatever the network.

  Sources are [C] utils/dataset.py and configs/byol.py, and torchvision's ResNet and
  transforms. For grey images, the normalisation is the mean over the channels.

  Args:
    padding: same, the reference's, or torch.
    channels: of the images, 1 or 3.
  """
  usual = schema.DataConfig()
  mean, std = (
    values if channels == 3 else (round(sum(values) / 3, 4),)
    for values in (usual.mean, usual.std)
  )
  return {
    "data.mean": mean,
    "data.std": std,
    "model.batch_norm.eps": schema.BatchNormConfig().eps,
    "model.encoder.pooling": "mean",
    "model.encoder.padding": padding,
  }


def _refusal(path: object, reason: object) -> errors.UserError:
  text = ascii(str(reason)[:400].rstrip("."))[1:-1]
  return errors.UserError(
    f"{path} cannot be read as an encoder: {text}; give a file of --mode=export, a"
    " workdir, a .pkl file of deepmind-research/byol, or a ResNet of torchvision or"
    " timm."
  )


def _of_safetensors(path: str) -> Weights:
  arrays = {}
  with encoder_file.opened(path) as file:
    names = list(file.keys())
    is_own = any(name.startswith("params/") for name in names)
    for name in () if is_own else names:
      if (kind := file.get_slice(name).get_dtype()) not in _TYPES:
        raise _refusal(path, f"{name!r} is of type {kind}")
      arrays[name] = file.get_tensor(name)
    metadata = file.metadata() or {}
  if not is_own:
    return _of_torch(path, arrays, metadata)
  config = encoder_file.config_for(schema.Config(), path)
  header, (params, statistics) = encoder_file.read(path, config)
  count = len(jax.tree.leaves((params, statistics)))
  return Weights(header.settings, params, statistics, count, header.step)


def _of_workdir(workdir: pathlib.Path) -> Weights:
  saved = saved_settings.of_run(workdir)
  if not saved:
    raise _refusal(workdir, "it holds no checkpoint")
  keys = encoder_settings.of(schema.Config())
  settings = encoder_settings.completed({key: saved[key] for key in keys})
  folder = workdir_files.checkpoint_folder(workdir)
  with checkpoints.Checkpoints(folder, keep=1) as run:
    leaves = run.restore(None)
  found = {path: _LEAF.fullmatch(path) for path in leaves}
  arrays = {
    "/".join(match.groups()): leaves[path]
    for path, match in found.items()
    if match
  }
  return _of_arrays(settings, arrays, step=int(leaves["step"]))


def _of_reference(path: str) -> Weights:
  checkpoint = reference_file.read(path)
  arrays = {
    f"{kind}/{module}/{name}": leaf
    for kind, tree in (
      ("params", checkpoint.online_params),
      ("state", checkpoint.online_state),
    )
    for module, leaves in tree.items()
    for name, leaf in leaves.items()
  }
  try:
    settings = architecture.of_encoder(checkpoint.online_params)
  except errors.UserError as error:
    raise _refusal(path, error) from error
  usual = usual_settings("same", settings["data.channels"])
  return _of_arrays(usual | settings, arrays, step=checkpoint.step)


def _of_torch(
  path: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> Weights:
  """Returns an encoder from arrays with torchvision's names.

  Args:
    path: of the file, for messages.
    arrays: by their names.
    metadata: of the file; --mode=export writes the settings and the step there.
  """
  try:
    known = {}
    if "config" in metadata:
      known = encoder_settings.completed(_parsed(metadata["config"]))
    root = _torch_root(arrays, known.get("model.encoder.name"))
    eps = known.get("model.batch_norm.eps", schema.BatchNormConfig().eps)
    found = torch_names.from_torch(arrays, root, eps)
    for name, array in found.arrays.items():
      if not np.isfinite(array).all():
        raise errors.UserError(f"{name} holds NaN or infinity")
    weights = _of_arrays({}, found.arrays)
    inferred = architecture.of_encoder(weights.params)
  except errors.UserError as error:
    raise _refusal(path, error) from error
  usual = usual_settings("torch", inferred["data.channels"])
  step = metadata.get("step", "")
  return weights._replace(
    settings=usual | inferred | known,
    taken=len(arrays) - len(found.left_out),
    step=int(step) if re.fullmatch("[0-9]{1,9}", step) else None,
    left_out=found.left_out,
    added=found.added,
  )


def _parsed(text: str) -> dict[str, Any]:
  """Returns the settings in the metadata of a file."""
  try:
    settings = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f"its config is no JSON: {error}") from error
  if not isinstance(settings, dict):
    raise errors.UserError("its config is no dictionary")
  return settings


def _of_arrays(
  settings: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  step: int | None = None,
) -> Weights:
  """Returns an encoder without the heads that are with it.

  Args:
    settings: see `Weights`.
    arrays: by params/MODULE/NAME and state/MODULE/NAME.
    step: see `Weights`.
  """
  trees: dict[str, dict[str, dict[str, np.ndarray]]] = {
    "params": {},
    "state": {},
  }
  left_out = []
  for path, array in arrays.items():
    kind, rest = path.split("/", 1)
    module, name = rest.rsplit("/", 1)
    if networks.is_of_encoder(module):
      trees[kind].setdefault(module, {})[name] = array
    else:
      left_out.append(path)
  taken = len(arrays) - len(left_out)
  return Weights(
    settings, trees["params"], trees["state"], taken, step, tuple(left_out)
  )


def _torch_root(arrays: Mapping[str, np.ndarray], name: str | None) -> str:
  """Returns our name of the module that has a torchvision ResNet's blocks.

  Args:
    arrays: by torchvision's names.
    name: of our encoder; None to find it by the number of blocks.
  """
  if name:
    if name not in encoders.RESNETS:
      raise errors.UserError(
        f"its {name} is stored for timm, which only ResNets are read from; give the"
        " encoder.safetensors of the same export"
      )
    return encoders.RESNETS[name].module_name
  blocks = tuple(
    len([key for key in arrays if re.match(rf"layer{i}\.\d+\.conv1\.", key)])
    for i in range(1, 5)
  )
  bottleneck = "layer1.0.conv3.weight" in arrays
  for known, resnet in encoders.RESNETS.items():
    # The reference's, for tests, has the blocks of a ResNet10.
    if known != "TinyResNet" and (tuple(resnet.blocks), resnet.bottleneck) == (
      blocks,
      bottleneck,
    ):
      return resnet.module_name
  raise errors.UserError(
    f"it has {blocks} blocks {'with' if bottleneck else 'without'} bottleneck, as"
    f" none of {', '.join(encoders.RESNETS)}"
  )
