"""ViTs and ConvNeXts as models of timm, and our arrays of them by its names.

timm's own models compute the same with a few arguments: no class token in a ViT, whose
positions are parameters there, and the last norm before the pooling.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax.config import schema
from byol_jax.interop.torch_names import Arrays
from byol_jax.models import convnext, encoders, patches, vit


class Model(NamedTuple):
  """What timm makes a model from.

  Attributes:
    architecture: its name there.
    args: arguments that replace those of the name.
    first_conv: the layer that takes the images.
    classifier: the layer that the encoder lacks.
  """

  architecture: str
  args: Mapping[str, Any]
  first_conv: str
  classifier: str


# Our modules below the root, and timm's.
_OF_VITS = {
  r"patch_embedding": "patch_embed.proj",
  r"block_(\d+)/norm_0": r"blocks.\1.norm1",
  r"block_(\d+)/query_key_value": r"blocks.\1.attn.qkv",
  r"block_(\d+)/attended": r"blocks.\1.attn.proj",
  r"block_(\d+)/norm_1": r"blocks.\1.norm2",
  r"block_(\d+)/hidden": r"blocks.\1.mlp.fc1",
  r"block_(\d+)/output": r"blocks.\1.mlp.fc2",
  r"final_norm": "norm",
}
_OF_CONVNEXTS = {
  r"stem": "stem.0",
  r"stem_norm": "stem.1",
  r"downsample_norm_(\d)": r"stages.\1.downsample.0",
  r"downsample_(\d)": r"stages.\1.downsample.1",
  r"block_(\d)_(\d+)": r"stages.\1.blocks.\2",
  r"block_(\d)_(\d+)/depthwise": r"stages.\1.blocks.\2.conv_dw",
  r"block_(\d)_(\d+)/norm": r"stages.\1.blocks.\2.norm",
  r"block_(\d)_(\d+)/hidden": r"stages.\1.blocks.\2.mlp.fc1",
  r"block_(\d)_(\d+)/output": r"stages.\1.blocks.\2.mlp.fc2",
  r"final_norm": "norm_pre",
}
_LEAVES = {"w": "weight", "b": "bias", "offset": "bias"}


def model(config: schema.Config) -> Model | None:
  """Returns timm's model of an encoder; None if it is no ViT and no ConvNeXt."""
  encoder, channels = config.model.encoder, config.data.channels
  if of_vit := encoders.VITS.get(encoder.name):
    size = vit.channels_of(of_vit, encoder)
    args = {
      "img_size": schema.image_shape(config.data),
      "patch_size": patches.side_of(encoder, vit.PATCHES),
      "in_chans": channels,
      "embed_dim": size,
      "depth": of_vit.depth,
      "num_heads": size // of_vit.head_size,
      "class_token": False,
      "global_pool": "avg",
      "fc_norm": False,
    }
    return Model("vit_base_patch16_224", args, "patch_embed.proj", "head")
  if of_convnext := encoders.CONVNEXTS.get(encoder.name):
    size = convnext.channels_of(of_convnext, encoder)
    args = {
      "patch_size": patches.side_of(encoder, convnext.PATCHES),
      "in_chans": channels,
      "depths": list(of_convnext.blocks),
      "dims": [size * 2**i for i in range(len(of_convnext.blocks))],
      "head_norm_first": True,
    }
    return Model("convnext_tiny", args, "stem.0", "head.fc")
  return None


def differences(config: schema.Config) -> list[str]:
  """Returns the settings of a ViT or ConvNeXt that timm's does not have."""
  encoder = config.model.encoder
  found = []
  if encoder.pooling != "mean":
    found.append(f"model.encoder.pooling={encoder.pooling}")
  if encoder.name in encoders.CONVNEXTS:
    # timm's halves the map once more after patches of 2, and at most to a 32nd.
    side = patches.side_of(encoder, convnext.PATCHES)
    if side == 2 or side > 7:
      found.append(f"patches of {side}")
  return found


def to_timm(arrays: Mapping[str, np.ndarray], config: schema.Config) -> Arrays:
  """Returns the arrays of a ViT or ConvNeXt by timm's names and in its layouts.

  Args:
    arrays: `params/ROOT/MODULE/NAME` of the encoder alone, as in an encoder file.
    config: the resolved configuration of its run, of which `model` is not None.

  Returns:
    Also a ViT's positions, as `pos_embed`.
  """
  is_vit = config.model.encoder.name in encoders.VITS
  names = _OF_VITS if is_vit else _OF_CONVNEXTS
  theirs = {}
  for name, array in arrays.items():
    _, _, *modules, leaf = name.split("/")
    module = "/".join(modules)
    pattern = next(p for p in names if re.fullmatch(p, module))
    their_leaf = _LEAVES.get(leaf) or (
      "weight" if "norm" in module else "gamma"
    )
    place = re.sub(pattern, names[pattern], module)
    theirs[f"{place}.{their_leaf}"] = _in_torch(array, module, config)
  if is_vit:
    count, _, size = theirs["patch_embed.proj.weight"].shape[:3]
    rows, columns = (
      length // size for length in schema.image_shape(config.data)
    )
    positions = vit.positions(rows, columns, count)
    theirs["pos_embed"] = positions.reshape(1, -1, count)
  return theirs


def _in_torch(
  array: np.ndarray, module: str, config: schema.Config
) -> np.ndarray:
  """Returns an array in PyTorch's layout; weights of patches as a convolution's."""
  if array.ndim == 1:
    return array
  if module in ("patch_embedding", "stem"):
    side = math.isqrt(len(array) // config.data.channels)
  elif module.startswith("downsample"):
    side = 2
  elif array.ndim == 2:
    return array.T
  else:
    side = len(array)
  return array.reshape(side, side, -1, array.shape[-1]).transpose(3, 2, 0, 1)
