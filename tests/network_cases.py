"""Networks for tests, from a few changed options."""

from collections.abc import Mapping
from typing import Any

import haiku as hk
import jax.numpy as jnp

from byol_jax import config
from byol_jax.config import convert, schema
from byol_jax.models import encoders, networks

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_network(
  *,
  hidden_size: int = 32,
  output_size: int = 16,
  num_classes: int = 10,
  precision: str = "float32",
  remat: bool = False,
  image_shape: tuple[int, int] = (32, 32),
  **encoder,
) -> hk.TransformedWithState:
  """Returns a network with small heads.

  Args:
    hidden_size: of projector and predictor.
    output_size: of projector and predictor.
    num_classes: outputs of the online classifier.
    precision: see `NetworkConfig`.
    remat: see `NetworkConfig`.
    image_shape: see `NetworkConfig`.
    **encoder: fields of `EncoderConfig`; by default a ResNet-18.
  """
  return networks.make_network(
    networks.NetworkConfig(
      model=schema.ModelConfig(
        encoder=schema.EncoderConfig(**({"name": "ResNet18"} | encoder)),
        projector=schema.ProjectorConfig(
          hidden_size=hidden_size, output_size=output_size
        ),
        predictor=schema.PredictorConfig(hidden_size=hidden_size),
      ),
      num_classes=num_classes,
      image_shape=image_shape,
      mean=IMAGENET_MEAN,
      std=IMAGENET_STD,
      precision=precision,
      remat=remat,
    )
  )


class _Patches(hk.Module):
  """A toy family: the mean of linear patch embeddings."""

  def __init__(self, config, *, bn_settings, remat):
    del bn_settings, remat
    super().__init__(name="patches")
    self._channels = round(8 * config.width)

  def __call__(self, images, is_training):
    del is_training
    views, batch, height, width, channels = images.shape
    x = images.reshape(views, batch, height // 4, 4, width // 4, 4, channels)
    x = x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(
      views, batch, height // 4, width // 4, 16 * channels
    )
    x = hk.Linear(self._channels)(x)
    return x, jnp.mean(x, axis=(2, 3))


# A small member of each family that divides images of 8 pixels and more.
PATCH_ENCODERS = {
  "ViT": {"name": "ViTMicro", "width": 0.25, "stem": "cifar"},
  "ConvNeXt": {"name": "ConvNeXtAtto", "width": 0.2, "patch": 1},
}

# An encoder that compiles in a moment.
PATCHES = encoders.Encoder(_Patches, lambda config, image_shape: None)


def settings_of_patches(overrides: Mapping[str, Any]) -> schema.Config:
  """Returns settings of a network that compiles in a moment.

  Args:
    overrides: dotted key to value. The encoder is `PATCHES`, which tests enter as
      Patches.
  """
  settings = convert.updated(
    convert.typed(config.small_grey_config()),
    {
      "model.encoder.name": "Patches",
      "model.projector.hidden_size": 16,
      "model.projector.output_size": 6,
      "model.predictor.hidden_size": 16,
      "data.image_size": 8,
      "data.mean": (0.5, 0.5, 0.5),
      "data.std": (0.3, 0.3, 0.3),
      "train.batch_size": 8,
      "train.steps": 20,
      "optimizer.warmup_epochs": 0.5,
      **overrides,
    },
  )
  config.validate(settings)
  return settings
