"""ViTs and ConvNeXts: sizes, options, mathematics, what the optimizer excludes."""

import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.learning import optimizers
from byol_jax.models import networks, vit
from byol_jax.runtime import platforms
from tests.network_cases import PATCH_ENCODERS, make_network


@pytest.fixture(autouse=True)
def plain():
  """Programs without the forms of CPUs, which take far longer to compile."""
  with platforms.assume("any"):
    yield


of_both_families = pytest.mark.parametrize(
  "encoder", PATCH_ENCODERS.values(), ids=PATCH_ENCODERS
)


def shapes_of(network, side):
  images = jnp.zeros((2, side, side, 3))
  init = functools.partial(network.init, is_training=True)
  return jax.eval_shape(init, jax.random.key(0), images)


def of_encoder(params):
  return {m: a for m, a in params.items() if networks.is_of_encoder(m)}


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
  params, state = shapes_of(
    make_network(name=name, image_shape=(224, 224)), 224
  )
  assert not any(map(networks.is_of_encoder, state))
  assert hk.data_structures.tree_size(of_encoder(params)) == count


@of_both_families
def test_no_parameter_depends_on_the_size_of_the_images(encoder):
  small, large = (
    shapes_of(make_network(image_shape=(side, side), **encoder), side)
    for side in (8, 24)
  )
  assert small == large


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    (
      {"name": "ViTTiny", "image_shape": (30, 30)},
      "30 must be a multiple of 16",
    ),
    (
      {"name": "ViTTiny", "image_shape": (30, 30)},
      "to one of 1, 2, 3, 5, 6, 10, 15",
    ),
    ({"name": "ViTTiny", "patch": 5}, "32 must be a multiple of 5"),
    (
      {"name": "ViTTiny", "width": 0.5},
      "96 channels, which must be a multiple",
    ),
    ({"name": "ViTTiny", "width": 0.5}, "to a multiple of 0.333333"),
    ({"name": "ViTTiny", "stem": "torch"}, "known|unknown"),
    ({"name": "ViTTiny", "pooling": "token"}, "mean, flatten"),
    (
      {"name": "ViTTiny", "norm": "group"},
      "norm=group is an option of ResNets",
    ),
    ({"name": "ViTTiny", "version": "v2"}, "leave it at v1 for ViTTiny"),
    ({"name": "ConvNeXtAtto", "padding": "torch"}, "leave it at same"),
    (
      {"name": "ConvNeXtAtto", "zero_init_last_scale": True},
      "leave it at False",
    ),
    ({"name": "ConvNeXtAtto", "patch": 8}, "at least 64 for ConvNeXtAtto"),
    ({"name": "ResNet18", "patch": 4}, "leave it at 0 for ResNet18"),
  ],
)
def test_what_does_not_suit_is_told_in_one_line(options, expected):
  with pytest.raises(errors.UserError, match=expected) as caught:
    make_network(**options)
  assert "\n" not in str(caught.value)


def test_positions_are_those_of_moco_v3():
  """Written as in build_2d_sincos_position_embedding of its vits.py, in NumPy."""
  side, channels = 5, 24
  first, second = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
  omega = 1.0 / (10_000.0 ** (np.arange(channels // 4) / (channels // 4)))
  first, second = (np.outer(x.flatten(), omega) for x in (first, second))
  waves = (np.sin(first), np.cos(first), np.sin(second), np.cos(second))
  np.testing.assert_allclose(
    vit.positions(side, side, channels).reshape(side**2, channels),
    np.concatenate(waves, axis=1),
    atol=1e-6,
  )


def initial(encoder):
  """A network, its parameters and its state, and two images."""
  network = make_network(image_shape=(8, 8), **encoder)
  images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
  init = jax.jit(functools.partial(network.init, is_training=True))
  return network, *init(jax.random.key(0), images), images


@pytest.mark.slow
@of_both_families
def test_the_gradient_reaches_every_parameter(encoder):
  network, params, state, images = initial(encoder)

  @jax.jit
  @jax.grad
  def gradient(params):
    outputs, _ = network.apply(params, state, images, is_training=True)
    return jnp.sum(outputs.embedding**3)

  for module, arrays in of_encoder(gradient(params)).items():
    for name, array in arrays.items():
      assert np.all(np.isfinite(array)), (module, name)
      assert np.any(array), (module, name)


@pytest.mark.slow
def test_a_scale_of_zero_silences_each_branch_of_a_convnext():
  network, params, state, images = initial(PATCH_ENCODERS["ConvNeXt"])
  scales = {m: a["scale"] for m, a in params.items() if set(a) == {"scale"}}
  assert len(scales) == 2 + 2 + 6 + 2
  assert all(np.all(scale == np.float32(1e-6)) for scale in scales.values())

  @jax.jit
  def embedding(params):
    outputs, _ = network.apply(params, state, images, is_training=True)
    return outputs.embedding

  def changed(scale):
    """What other weights in the branches change."""
    scaled = params | {m: {"scale": x + scale} for m, x in zeros.items()}
    branches = {
      m: jax.tree.map(lambda x: x + 1, a)
      for m, a in params.items()
      if any(m.startswith(f"{block}/") for block in scales)
    }
    return np.any(embedding(scaled) != embedding(scaled | branches))

  zeros = jax.tree.map(jnp.zeros_like, scales)
  assert not changed(0.0)
  assert changed(1.0)


@pytest.mark.slow
@of_both_families
def test_bfloat16_keeps_parameters_and_features_in_float32(encoder):
  network, params, state, images = initial(encoder)
  half = make_network(image_shape=(8, 8), precision="bfloat16", **encoder)
  shapes, _ = shapes_of(half, 8)
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} == {"float32"}
  exact, rounded = (
    jax.jit(functools.partial(n.apply, is_training=False))(
      params, state, images
    )[0].embedding
    for n in (network, half)
  )
  assert rounded.dtype == jnp.float32
  # bfloat16 has eight binary digits; some layers' roundings add up.
  distance = jnp.linalg.norm(rounded - exact)
  assert 0 < distance < 0.05 * jnp.linalg.norm(exact)


@pytest.mark.slow
@of_both_families
def test_rematerialisation_changes_no_gradient(encoder):
  network, params, state, images = initial(encoder)
  again = make_network(image_shape=(8, 8), remat=True, **encoder)

  def loss(network, params):
    outputs, _ = network.apply(params, state, images, is_training=False)
    return jnp.sum(outputs.embedding**3)

  gradients = [jax.grad(functools.partial(loss, n)) for n in (network, again)]
  plain, repeated = (str(jax.make_jaxpr(g)(params)) for g in gradients)
  assert "remat" not in plain
  assert "remat" in repeated
  chex.assert_trees_all_close(
    *(jax.jit(g)(params) for g in gradients), rtol=1e-4, atol=1e-5
  )


# All others have one axis: biases, norms and the scales of ConvNeXt's branches.
WEIGHTS = {
  "ViT": {
    "patch_embedding/w",
    "query_key_value/w",
    "attended/w",
    "hidden/w",
    "output/w",
  },
  "ConvNeXt": {
    "stem/w",
    "depthwise/w",
    "hidden/w",
    "output/w",
    *(f"downsample_{i}/w" for i in (1, 2, 3)),
  },
}


@pytest.mark.parametrize("family", PATCH_ENCODERS)
def test_only_weights_are_decayed_and_adapted(family):
  params, _ = shapes_of(
    make_network(image_shape=(8, 8), **PATCH_ENCODERS[family]), 8
  )
  params = of_encoder(params)
  decayed = set()
  for module, names in optimizers.exclude_bias_and_norm(params).items():
    for name, is_decayed in names.items():
      assert is_decayed == (params[module][name].ndim > 1), (module, name)
      if is_decayed:
        decayed.add(f"{module.split('/')[-1]}/{name}")
  assert decayed == WEIGHTS[family]
