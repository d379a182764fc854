"""Encoders and heads: names, shapes, counts, options."""

import functools

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.models import describe, encoders, networks
from byol_jax.runtime import platforms
from tests import golden_data
from tests.network_cases import PATCHES, make_network

TREES = golden_data.param_trees()


def shapes_of(network, side):
  images = jnp.zeros((2, side, side, 3))
  init = lambda key: network.init(key, images, is_training=True)  # noqa: E731
  return jax.eval_shape(init, jax.random.key(0))


@pytest.mark.parametrize(
  ("tree", "encoder", "width"),
  [("ResNet50_1x", "ResNet50", 1.0), ("ResNet200_2x", "ResNet200", 2.0)],
)
def test_parameter_tree_is_the_references(tree, encoder, width):
  config = TREES[tree]["config"]
  assert config["projector_hidden_size"] == config["predictor_hidden_size"]
  network = make_network(
    name=encoder,
    width=width,
    hidden_size=config["projector_hidden_size"],
    output_size=config["projector_output_size"],
    num_classes=1000,
  )
  params, state = shapes_of(network, 224)
  assert {
    (module, name, *leaf.shape)
    for module, arrays in params.items()
    for name, leaf in arrays.items()
  } == {(module, name, *shape) for module, name, shape in TREES[tree]["params"]}
  assert {
    (module, name, *leaf.shape, str(leaf.dtype))
    for module, arrays in state.items()
    for name, leaf in arrays.items()
  } == {
    (module, name, *shape, dtype)
    for module, name, shape, dtype in TREES[tree]["state"]
  }
  total = TREES[tree]["counts"]["total"]
  assert hk.data_structures.tree_size(params) == total


# Torchvision's counts without the classifier; the reference also projects the
# first block's shortcut of basic ResNets (64 x 64 and two vectors of 64).
@pytest.mark.parametrize(
  ("encoder", "count"),
  [
    ("ResNet18", 11_176_512 + 64 * 64 + 128),
    ("ResNet34", 21_284_672 + 64 * 64 + 128),
    ("ResNet50", 23_508_032),
    ("ResNet101", 42_500_160),
    ("ResNet152", 58_143_808),
  ],
)
def test_encoders_have_the_known_number_of_parameters(encoder, count):
  params, _ = shapes_of(make_network(name=encoder), 64)
  of_encoder = {m: a for m, a in params.items() if networks.is_of_encoder(m)}
  assert hk.data_structures.tree_size(of_encoder) == count


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize(
  ("pooling", "positions"), [("mean", {1}), ("flatten", {1, 16})]
)
def test_every_variant_gives_finite_outputs_of_its_shapes(
  version, stem, pooling, positions
):
  network = make_network(
    name="TinyResNet", version=version, stem=stem, pooling=pooling, width=0.5
  )
  images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
  params, state = network.init(jax.random.key(1), images, is_training=True)
  outputs, _ = network.apply(params, state, images, is_training=True)
  assert outputs.embedding.shape[0] == 2
  assert outputs.embedding.shape[1] // 4 in positions
  assert outputs.projection.shape == outputs.prediction.shape == (2, 16)
  assert outputs.logits.shape == (2, 10)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(outputs))


def test_width_multiplies_all_channels_even_by_fractions():
  network = make_network(width=0.25, stem="cifar")
  params, _ = shapes_of(network, 32)
  assert params["res_net18/~/initial_conv"]["w"].shape == (3, 3, 3, 16)
  last = "res_net18/~/block_group_3/~/block_1/~/conv_1"
  assert params[last]["w"].shape == (3, 3, 128, 128)


def test_paddings_differ_where_a_side_is_even_and_strided():
  same, torch = (
    make_network(name="TinyResNet", width=0.5, padding=padding)
    for padding in ("same", "torch")
  )
  images = jax.random.uniform(jax.random.key(0), (1, 65, 65, 3))
  params, state = jax.jit(functools.partial(same.init, is_training=True))(
    jax.random.key(1), images
  )

  def encode(network, images):
    apply = jax.jit(functools.partial(network.apply, is_training=True))
    return apply(params, state, images)[0].embedding

  # 65 becomes 33, 17, 9, 5 and 3.
  np.testing.assert_array_equal(encode(torch, images), encode(same, images))
  images = images[:, 1:, 1:]
  assert np.max(np.abs(encode(torch, images) - encode(same, images))) > 0.01


@pytest.mark.parametrize(
  ("encoder", "last"),
  [("TinyResNet", 1), pytest.param("ResNet50", 2, marks=pytest.mark.slow)],
)
def test_zero_init_silences_each_residual_branch(encoder, last):
  images = jnp.zeros((1, 32, 32, 3))
  for zero in (False, True):
    network = make_network(name=encoder, width=0.125, zero_init_last_scale=zero)
    params, _ = network.init(jax.random.key(0), images, is_training=True)
    scales = [
      arrays["scale"]
      for module, arrays in params.items()
      if module.endswith(f"block_0/~/batchnorm_{last}")
    ]
    assert len(scales) == 4
    assert all(np.all(scale == (0 if zero else 1)) for scale in scales)


@pytest.mark.slow
def test_inference_treats_each_image_by_itself():
  network = make_network(name="TinyResNet")
  images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
  params, state = network.init(jax.random.key(1), images, is_training=True)
  _, state = network.apply(params, state, images, is_training=True)
  together, same = network.apply(params, state, images, is_training=False)
  alone, _ = network.apply(params, state, images[:1], is_training=False)
  np.testing.assert_allclose(together.embedding[:1], alone.embedding, rtol=1e-4)
  assert all(
    np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True)
  )


@pytest.mark.parametrize(
  ("option", "value", "known"),
  [
    ("name", "ResNet51", "ResNet50"),
    ("version", "v3", "v1, v2"),
    ("stem", "patch", "imagenet, cifar"),
    ("pooling", "max", "mean, flatten"),
    ("precision", "float16", "float32, bfloat16"),
  ],
)
def test_unknown_names_list_the_known_ones(option, value, known):
  with pytest.raises(errors.UserError, match=known):
    make_network(**{option: value})


@pytest.mark.slow
def test_bfloat16_computes_in_it_and_keeps_all_else_in_float32():
  # The stem keeps 16 positions to the end: batch norm over a few images of one
  # position each would blow up rounding.
  images = jax.random.uniform(jax.random.key(0), (1, 16, 32, 32, 3))
  full, half = (
    make_network(name="TinyResNet", stem="cifar", precision=precision)
    for precision in ("float32", "bfloat16")
  )
  (params, state), (same, _) = (
    jax.jit(functools.partial(network.init, is_training=True))(
      jax.random.key(1), images
    )
    for network in (full, half)
  )
  chex.assert_trees_all_equal(params, same)

  def loss(network, params):
    outputs, new_state = network.apply(params, state, images, is_training=True)
    return jnp.mean(jnp.square(outputs.prediction)), (outputs, new_state)

  with platforms.assume("gpu"):  # CPUs widen inside a convolution.
    program = jax.make_jaxpr(jax.grad(lambda p: loss(half, p)[0]))(params)
  assert products_of(program.jaxpr) == {"bfloat16"}
  outputs = []
  for network in (full, half):
    gradient = jax.grad(functools.partial(loss, network), has_aux=True)
    results = jax.jit(gradient)(params)
    outputs.append(results[1][0])
    types = {str(leaf.dtype) for leaf in jax.tree.leaves(results)}
    assert types == {"float32", "int32"}  # Counters of running statistics.
  for a, b in zip(*outputs, strict=True):
    # bfloat16 has eight binary digits; some layers' roundings add up.
    assert 0 < jnp.linalg.norm(a - b) < 0.05 * jnp.linalg.norm(a)


def products_of(jaxpr):
  """The input types of all convolutions and products, as the layers ask for."""
  found = set()
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
      found |= {str(v.aval.dtype) for v in eqn.invars}
    for value in eqn.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        found |= products_of(inner)
  return found


@pytest.mark.slow
def test_rematerialisation_changes_no_result():
  images = jax.random.uniform(jax.random.key(0), (2, 64, 32, 32, 3))
  results = []
  for remat in (False, True):
    network = make_network(stem="cifar", width=0.125, remat=remat)
    params, state = network.init(jax.random.key(1), images, is_training=True)

    def loss(params, network=network, state=state):
      outputs, new_state = network.apply(
        params, state, images, is_training=True
      )
      return jnp.mean(jnp.square(outputs.prediction)), new_state

    results.append(jax.jit(jax.grad(loss, has_aux=True))(params))
  chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-6)


def test_the_registry_takes_encoders_that_are_no_resnets(monkeypatch):
  monkeypatch.setitem(encoders.ENCODERS, "Patches", PATCHES)
  network = make_network(name="Patches", width=2.0, stem="none of a ResNet's")
  (encoder, *_) = describe.describe(network, (2, 32, 32, 3))
  assert encoder == ("patches", "2x32x32x3", "2x16", 16 * (48 + 1))


def test_large_batches_are_described():
  network = make_network(name="TinyResNet", stem="cifar")
  (encoder, *_) = describe.describe(network, (50_000, 224, 224, 3))
  assert encoder.input_shape == "50000x224x224x3"
