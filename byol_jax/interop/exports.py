"""Writes a trained encoder in the formats of `export.formats`."""

import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.interop import (
  encoder_arrays,
  encoder_file,
  encoder_settings,
  hub_folder,
  onnx_file,
  stablehlo_file,
  timm_names,
  torch_files,
  torch_names,
)
from byol_jax.interop.encoder import Variables
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files
from byol_jax.training import build
from byol_jax.training.runs import Run

_REMEDY = "free space there and export again"

# Of protobuf and flatbuffers, in which ONNX and StableHLO are stored, less what is
# there beside the parameters.
_MOST_BYTES = 2**31 - 2**24


class Trained(NamedTuple):
  """An encoder to be written.

  Attributes:
    run: that trained it.
    state: at the step to export.
    arrays: those of an encoder file, by name.
    effect: of PyTorch's padding, see `hub_folder.Card`.
  """

  run: Run
  state: TrainState
  arrays: Mapping[str, np.ndarray]
  effect: torch_files.PaddingEffect | None

  @property
  def variables(self) -> Variables:
    """The encoder's parameters and batch-norm statistics."""
    return encoder_arrays.variables(self.state)

  @property
  def torch_arrays(self) -> torch_names.Arrays:
    """The arrays by torchvision's names."""
    return torch_names.to_torch(self.arrays)

  @property
  def metadata(self) -> dict[str, str]:
    """The step and the settings, for the metadata of a file."""
    settings = json.dumps(encoder_settings.of(self.run.config))
    return {"step": str(int(self.state.step)), "config": settings}


class Format(NamedTuple):
  """An entry of the registry.

  Attributes:
    write: writes an encoder to a folder and returns the path to show.
    check: raises `UserError` if an encoder cannot be written so.
  """

  write: Callable[[Trained, pathlib.Path], pathlib.Path]
  check: Callable[[schema.Config], None]


def write(
  run: Run, state: TrainState, tell: Callable[[str], None]
) -> list[pathlib.Path]:
  """Writes the online encoder to the folder `encoder` of the workdir.

  Args:
    run: that trained it, in `export.formats`.
    state: of the step to export.
    tell: is called with each line that the user should see.

  Returns:
    The files and folders that were written.

  Raises:
    UserError: if a format is unknown or does not suit the encoder, before anything
      is written; if the encoder holds NaN or infinity; or if a file cannot be
      written.
  """
  config = run.config
  names = check(config)
  arrays = encoder_arrays.of_state(state)
  effect = None
  if (
    {"torchvision", "timm", "hub"} & set(names)
    and config.model.encoder.padding == "same"
    and torch_files.timm_name(config)
  ):
    effect = torch_files.padding_effect(run, encoder_arrays.variables(state))
    tell(
      "Note: torchvision's and timm's own ResNets pad otherwise, which changes the"
      f" features by {effect.mean:.1%} on average ({effect.images} images of"
      f" {effect.split}); {torch_files.MODULE_FILE} is exact."
    )
  trained = Trained(run, state, arrays, effect)
  folder = run.workdir / "encoder"
  return [FORMATS[name].write(trained, folder) for name in names]


def check(config: schema.Config) -> list[str]:
  """Returns the formats, or raises `UserError` for an unknown or unsuitable one."""
  names = convert.names(config.export.formats)
  for name in names:
    if name not in FORMATS:
      raise errors.unknown_name("export.formats", name, FORMATS)
    FORMATS[name].check(config)
  return names


def _write_file(path: pathlib.Path, contents: bytes) -> pathlib.Path:
  with files.atomic_write(path, _REMEDY) as file:
    file.write_bytes(contents)
  return path


def _write_haiku(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
  path = folder / "encoder.safetensors"
  run = trained.run
  encoder_file.write(path, run.config, trained.state, run.source.class_names)
  return path


def _write_torchvision(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
  folder = folder / "torchvision"
  contents = torch_files.weights(trained.torch_arrays, trained.metadata)
  _write_file(folder / "model.safetensors", contents)
  text = torch_files.module_text()
  _write_file(folder / torch_files.MODULE_FILE, text.encode())
  return folder


def _write_timm(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
  folder, config = folder / "timm", trained.run.config
  arrays = (
    timm_names.to_timm(trained.arrays, config)
    if timm_names.model(config)
    else trained.torch_arrays
  )
  contents = torch_files.weights(arrays, trained.metadata)
  _write_file(folder / "model.safetensors", contents)
  text = hub_folder.config_text(_card(trained))
  _write_file(folder / "config.json", text.encode())
  return folder


def _write_hub(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
  folder = folder / "hub"
  _write_haiku(trained, folder)
  contents = torch_files.weights(trained.torch_arrays, trained.metadata)
  _write_file(folder / "model.safetensors", contents)
  card = _card(trained)
  for name, text in (
    (torch_files.MODULE_FILE, torch_files.module_text()),
    ("config.json", hub_folder.config_text(card)),
    ("README.md", hub_folder.card_text(card)),
  ):
    _write_file(folder / name, text.encode())
  return folder


def _write_stablehlo(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
  _check_size("stablehlo", trained.arrays)
  config = trained.run.config
  contents = stablehlo_file.serialized(
    build.build_encoder(config), trained.variables, config.data
  )
  return _write_file(folder / "encoder.stablehlo", contents)


def _write_onnx(trained: Trained, folder: pathlib.Path) -> pathlib.Path:
  _check_size("onnx", trained.arrays)
  contents = onnx_file.serialized(
    trained.torch_arrays, trained.run.config, trained.metadata
  )
  return _write_file(folder / "encoder.onnx", contents)


def _card(trained: Trained) -> hub_folder.Card:
  run, data = trained.run, trained.run.config.data
  shape = (1, *schema.image_shape(data), data.channels)
  features = jax.eval_shape(
    lambda images: build.build_encoder(run.config).apply(
      *trained.variables, images, is_training=False
    ),
    jax.ShapeDtypeStruct(shape, np.float32),
  )[0].embedding.shape[1]
  count = sum(
    x.size for name, x in trained.arrays.items() if name.startswith("params/")
  )
  return hub_folder.Card(
    run, int(trained.state.step), features, count, trained.effect
  )


def _check_nothing(config: schema.Config) -> None:
  del config


def _check_resnet(config: schema.Config) -> None:
  encoder = config.model.encoder
  if timm_names.model(config):
    raise errors.UserError(
      f"model.encoder.name={encoder.name} is no ResNet, which the formats torchvision,"
      " onnx and hub need; leave only haiku, stablehlo and timm in export.formats."
    )
  if encoder.version != "v1":
    raise errors.UserError(
      f"model.encoder.version={encoder.version} has no place in torchvision's"
      " ResNets; leave only haiku and stablehlo in export.formats."
    )


def _check_timm(config: schema.Config) -> None:
  if timm_names.model(config):
    if causes := ", ".join(timm_names.differences(config)):
      raise errors.UserError(
        f"timm has no {config.model.encoder.name} with {causes}; leave only haiku and"
        " stablehlo in export.formats."
      )
  elif causes := ", ".join(torch_files.differences(config)):
    raise errors.UserError(
      f"timm has no ResNet with {causes}; put torchvision in the place of timm in"
      f" export.formats, for {torch_files.MODULE_FILE} to load the encoder."
    )


def _check_onnx(config: schema.Config) -> None:
  _check_resnet(config)
  if importlib.util.find_spec("onnx") is None:
    raise errors.UserError(
      "export.formats with onnx needs the package onnx, which is not installed;"
      " install it, or leave onnx out."
    )


def _check_size(name: str, arrays: Mapping[str, np.ndarray]) -> None:
  size = sum(x.nbytes for x in arrays.values())
  if size > _MOST_BYTES:
    raise errors.UserError(
      f"The encoder's {size / 1e9:.1f} GB exceed the 2 GB that a file of {name} can"
      f" hold; leave {name} out of export.formats."
    )


FORMATS: dict[str, Format] = {
  "haiku": Format(_write_haiku, _check_nothing),
  "torchvision": Format(_write_torchvision, _check_resnet),
  "timm": Format(_write_timm, _check_timm),
  "stablehlo": Format(_write_stablehlo, _check_nothing),
  "onnx": Format(_write_onnx, _check_onnx),
  "hub": Format(_write_hub, _check_resnet),
}
