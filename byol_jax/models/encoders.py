"""The registry of encoders.

To add a family of encoders, write a Haiku module in a file of this package and
enter its members here. `Builder` says what the module returns; the names of its
parameters begin with its own name.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import chex

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models import convnext, resnet, vit
from byol_jax.models.batch_norm import Settings


class Builder(Protocol):
  """Makes the Haiku module of an encoder, inside a transformed function."""

  def __call__(
    self,
    config: schema.EncoderConfig,
    *,
    bn_settings: Settings,
    remat: bool,
  ) -> Callable[[chex.Array, bool], tuple[dict[str, chex.Array], chex.Array]]:
    """Returns the module.

    It maps normalised views, [V, B, H, W, C], and `is_training` to the feature maps
    of its stages by name, [V, B, h, w, F] each, and to the embeddings, [V, B, D],
    which are pooled from the stage called final.

    Args:
      config: the options of the encoder.
      bn_settings: how every batch norm works.
      remat: whether to compute parts again for their gradient.
    """


class Encoder(NamedTuple):
  """An entry of the registry.

  Attributes:
    build: makes the module.
    check: raises `UserError` if the options do not suit this encoder, or images of
      this height and width.
  """

  build: Builder
  check: Callable[[schema.EncoderConfig, tuple[int, int]], None]


_BASIC = (64, 128, 256, 512)
_BOTTLENECK = (256, 512, 1024, 2048)

# He et al. 2016. TinyResNet is the reference's, for tests; ResNet10 is ours, the
# shallowest that keeps the channels, for a machine without an accelerator.
RESNETS: dict[str, resnet.Architecture] = {
  name: resnet.Architecture(module_name, blocks, channels, bottleneck)
  for name, module_name, blocks, channels, bottleneck in (
    ("TinyResNet", "tiny_res_net", (1, 1, 1, 1), (8, 8, 8, 8), False),
    ("ResNet10", "res_net10", (1, 1, 1, 1), _BASIC, False),
    ("ResNet18", "res_net18", (2, 2, 2, 2), _BASIC, False),
    ("ResNet34", "res_net34", (3, 4, 6, 3), _BASIC, False),
    ("ResNet50", "res_net50", (3, 4, 6, 3), _BOTTLENECK, True),
    ("ResNet101", "res_net101", (3, 4, 23, 3), _BOTTLENECK, True),
    ("ResNet152", "res_net152", (3, 8, 36, 3), _BOTTLENECK, True),
    ("ResNet200", "res_net200", (3, 24, 36, 3), _BOTTLENECK, True),
  )
}

# Touvron et al. 2021 (arXiv 2012.12877) and, for Base, Dosovitskiy et al. 2020. Micro is
# ours, for images of 32 pixels: half as wide as ViT-Lite-6 (arXiv 2104.05704).
VITS: dict[str, vit.Architecture] = {
  name: vit.Architecture(module_name, channels, depth, head_size)
  for name, module_name, channels, depth, head_size in (
    ("ViTMicro", "vit_micro", 128, 6, 32),
    ("ViTTiny", "vit_tiny", 192, 12, 64),
    ("ViTSmall", "vit_small", 384, 12, 64),
    ("ViTBase", "vit_base", 768, 12, 64),
  )
}

# Liu et al. 2022 for Tiny; the others are timm's (timm/models/convnext.py).
CONVNEXTS: dict[str, convnext.Architecture] = {
  name: convnext.Architecture(module_name, blocks, channels)
  for name, module_name, blocks, channels in (
    ("ConvNeXtAtto", "convnext_atto", (2, 2, 6, 2), 40),
    ("ConvNeXtFemto", "convnext_femto", (2, 2, 6, 2), 48),
    ("ConvNeXtPico", "convnext_pico", (2, 2, 6, 2), 64),
    ("ConvNeXtNano", "convnext_nano", (2, 2, 8, 2), 80),
    ("ConvNeXtTiny", "convnext_tiny", (3, 3, 9, 3), 96),
  )
}

ENCODERS: dict[str, Encoder] = (
  {
    name: Encoder(functools.partial(resnet.ResNet, architecture), resnet.check)
    for name, architecture in RESNETS.items()
  }
  | {
    name: Encoder(
      functools.partial(vit.ViT, architecture),
      functools.partial(vit.check, architecture),
    )
    for name, architecture in VITS.items()
  }
  | {
    name: Encoder(
      functools.partial(convnext.ConvNeXt, architecture), convnext.check
    )
    for name, architecture in CONVNEXTS.items()
  }
)


def find(config: schema.EncoderConfig, image_shape: tuple[int, int]) -> Encoder:
  """Returns the entry of an encoder.

  Args:
    config: names it.
    image_shape: height and width of its images in pixels.

  Raises:
    UserError: if the name is unknown, or the options or the images do not suit the
      encoder.
  """
  if config.name not in ENCODERS:
    raise errors.unknown_name("model.encoder.name", config.name, ENCODERS)
  encoder = ENCODERS[config.name]
  encoder.check(config, image_shape)
  return encoder
