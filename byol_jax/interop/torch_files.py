"""The encoder's weights for PyTorch, and who else than our module can load them."""

import importlib.resources
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import haiku as hk
import jax
import numpy as np
import safetensors.numpy

from byol_jax.config import convert, schema
from byol_jax.interop.encoder import Variables
from byol_jax.training import build, data_streams
from byol_jax.training.runs import Run

MODULE_FILE = "torch_encoder.py"

# What torchvision's and timm's ResNets of these names are. Basic ones are not
# here: ours project in their first shortcut.
_NAMES = {
  "ResNet50": "resnet50",
  "ResNet101": "resnet101",
  "ResNet152": "resnet152",
  "ResNet200": "resnet200",  # timm only.
}
_SETTINGS = {
  "data.channels": 3,
  "model.encoder.width": 1.0,
  "model.encoder.version": "v1",
  "model.encoder.stem": "imagenet",
  "model.encoder.pooling": "mean",
  "model.batch_norm.eps": 1e-5,
}

# Our choice: enough for a second digit, and seconds of work on a CPU.
_IMAGES_TO_COMPARE = 64


class PaddingEffect(NamedTuple):
  """How far features with PyTorch's padding are from those of an encoder.

  A distance is the norm of the difference over the norm of the encoder's features.

  Attributes:
    mean: of the distances.
    largest: of the distances.
    images: their number.
    split: the split that they are from.
  """

  mean: float
  largest: float
  images: int
  split: str


def weights(
  arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> bytes:
  """Returns a safetensors file.

  Args:
    arrays: from `torch_names.to_torch`.
    metadata: of our encoder file, which `module_text` reads.
  """
  # safetensors writes the memory of an array as it lies.
  arrays = {name: np.asarray(x, order="C") for name, x in arrays.items()}
  return safetensors.numpy.save(arrays, {"format": "pt", **metadata})


def module_text() -> str:
  """Returns the Python module that computes any of our encoders in PyTorch."""
  package = importlib.resources.files("byol_jax.interop")
  return (package / f"{MODULE_FILE}.txt").read_text()


def timm_name(config: schema.Config) -> str:
  """Returns timm's name of the encoder's architecture; "" if it has none."""
  return "" if list(differences(config)) else _NAMES[config.model.encoder.name]


def torchvision_name(config: schema.Config) -> str:
  """Returns torchvision's name of the architecture; "" if it has none."""
  name = timm_name(config)
  return "" if name == "resnet200" else name


def differences(config: schema.Config) -> Iterator[str]:
  """Yields the settings that the ResNets of torchvision and timm do not have."""
  if config.model.encoder.name not in _NAMES:
    yield f"model.encoder.name={config.model.encoder.name}"
  for key, theirs in _SETTINGS.items():
    value = convert.value_at(config, key)
    if value != theirs:
      yield f"{key}={value}"


def padding_effect(run: Run, variables: Variables) -> PaddingEffect:
  """Returns what PyTorch's padding changes, on images of the run's test split.

  Args:
    run: whose encoder has the padding `same`. Without a test split the images are
      of those that it trained on.
    variables: of the encoder.
  """
  other = convert.updated(run.config, {"model.encoder.padding": "torch"})
  split = run.source.dataset.test or run.source.dataset.pretrain
  count = min(_IMAGES_TO_COMPARE, run.source.num_examples(split))
  batches = data_streams.eval_batches(
    run.config, run.source, split, batch_size=count, indices=range(count)
  )
  images = next(batches)["image"]
  exact, plain = (
    _features(build.build_encoder(config), variables, images)
    for config in (run.config, other)
  )
  distances = np.linalg.norm(plain - exact, axis=1)
  distances = distances / np.linalg.norm(exact, axis=1)
  return PaddingEffect(
    float(distances.mean()), float(distances.max()), count, split
  )


def _features(
  network: hk.TransformedWithState, variables: Variables, images: np.ndarray
) -> np.ndarray:
  @jax.jit
  def encode(variables, images):
    return network.apply(*variables, images, is_training=False)[0].embedding

  return np.asarray(encode(variables, images))
