"""ViTs and ConvNeXts: sizes, options, mathematics on CPUs, training."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import pytest

from byol_jax.models import networks
from tests.network_cases import make_network

SMALL = {
  "ViT": {"name": "ViTMicro", "width": 0.25, "stem": "cifar"},
  "ConvNeXt": {"name": "ConvNeXtAtto", "width": 0.2, "patch": 1},
}


def shapes_of(network, side):
  images = jnp.zeros((2, side, side, 3))
  init = functools.partial(network.init, is_training=True)
  return jax.eval_shape(init, jax.random.key(0), images)


# DeiT's and ViT's counts without class token, positions and classifier, and ConvNeXt's
# without classifier, as timm states them.
@pytest.mark.parametrize(
  ("name", "count"),
  [
    ("ViTTiny", 5_524_416 - 198 * 192),
    ("ViTSmall", 21_665_664 - 198 * 384),
    ("ViTBase", 85_798_656 - 198 * 768),
    ("ConvNeXtAtto", 3_374_520),
    ("ConvNeXtFemto", 4_832_784),
    ("ConvNeXtPico", 8_532_672),
    ("ConvNeXtNano", 14_952_560),
    ("ConvNeXtTiny", 27_820_128),
  ],
)
def test_encoders_have_the_published_number_of_parameters(name, count):
  params, state = shapes_of(make_network(name=name, image_size=224), 224)
  assert not any(map(networks.is_of_encoder, state))
  of_encoder = {m: a for m, a in params.items() if networks.is_of_encoder(m)}
  assert hk.data_structures.tree_size(of_encoder) == count
