"""Norms that are no batch norm, against direct computations."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.interop import encoder_file
from byol_jax.learning.optimizers import exclude_bias_and_norm
from byol_jax.models import layers, norms
from byol_jax.models.batch_norm import Settings
from byol_jax.training import build
from tests import encoder_cases

RANDOM = np.random.RandomState(0)
SETTINGS = Settings(decay_rate=0.9, eps=1e-5)


def direct_group_norm(x, groups):
  """Of one view, example by example."""
  result = np.empty_like(x)
  for i, example in enumerate(x):
    for part in np.split(np.arange(x.shape[-1]), groups):
      values = example[..., part]
      result[i][..., part] = (values - values.mean()) / np.sqrt(
        values.var() + 1e-5
      )
  return result


@pytest.mark.parametrize(
  ("shape", "groups"),
  [((3, 48), 3), ((3, 4, 5, 48), 3), ((3, 4, 5, 20), 5), ((3, 1, 1, 8), 1)],
)
@pytest.mark.parametrize("name", ["group", "layer"])
def test_group_and_layer_norm_are_those_of_each_example(name, shape, groups):
  groups = groups if name == "group" else 1
  x = RANDOM.randn(2, *shape).astype(np.float32) * 3 + 1
  network = hk.without_apply_rng(
    hk.transform(lambda x, train: norms.NORMS[name](SETTINGS)(x, train))
  )
  ((module, params),) = network.init(None, x, True).items()
  assert module == f"{name}_norm"
  params = {n: RANDOM.rand(*a.shape).astype("f") for n, a in params.items()}
  for is_training in (True, False):
    y = network.apply({module: params}, x, is_training)
    for view, own in zip(x, y, strict=True):
      expected = direct_group_norm(view, groups)
      expected = expected * params["scale"] + params["offset"]
      np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_standardised_convolutions_use_weights_of_mean_0_and_variance_1():
  x = RANDOM.randn(1, 2, 6, 6, 3).astype(np.float32)

  def forward(x, standardised):
    return layers.Conv2D(4, 3, 1, "conv", standardised=standardised)(x)

  network = hk.without_apply_rng(hk.transform(forward))
  params = network.init(jax.random.key(0), x, False)
  w = np.asarray(params["conv"]["w"]) * 7 + 0.5
  of_channel = w.reshape(-1, 4)
  standard = (of_channel - of_channel.mean(0)) / of_channel.std(0)
  np.testing.assert_allclose(
    network.apply({"conv": {"w": w}}, x, True),
    network.apply({"conv": {"w": standard.reshape(w.shape)}}, x, False),
    rtol=1e-3,
    atol=1e-4,
  )


def tiny(overrides):
  return convert.updated(
    schema.Config(),
    {
      "model.encoder.name": "TinyResNet",
      "model.encoder.stem": "cifar",
      "model.projector.hidden_size": 16,
      "model.predictor.hidden_size": 16,
      "data.image_size": 8,
    }
    | overrides,
  )


def shapes(settings):
  network = build.build_network(settings, 4)
  return jax.eval_shape(
    lambda key: network.init(key, jnp.zeros((1, 8, 8, 3)), is_training=True),
    jax.random.key(0),
  )


@pytest.mark.parametrize("name", norms.NORMS)
def test_norms_keep_the_names_that_decay_and_export_rely_on(name):
  parts = ("encoder", "projector", "predictor")
  params, state = shapes(tiny({f"model.{part}.norm": name for part in parts}))
  assert bool(state) == (name == "batch")
  for module, arrays in exclude_bias_and_norm(params).items():
    is_norm = "scale" in arrays
    assert set(arrays) == ({"scale", "offset"} if is_norm else set(arrays))
    for key, is_weight in arrays.items():
      assert is_weight == (key == "w"), (module, key)
  has_norm = any("scale" in arrays for arrays in params.values())
  assert has_norm == (name != "none")


@pytest.mark.slow
def test_an_encoder_with_group_norm_is_exported(tmp_path):
  path = tmp_path / "encoder.safetensors"
  encoder_cases.save(path, norm="group", stem="cifar")
  encoder = encoder_file.load(path)
  params, state = encoder.variables
  assert not state
  images = encoder_cases.images(3)
  settings = tiny({"model.encoder.norm": "group", "data.image_size": 32})
  expected, _ = build.build_encoder(settings).apply(
    params, {}, images.astype(np.float32) / 255, is_training=False
  )
  np.testing.assert_allclose(
    encoder.encode(images), expected.embedding, rtol=1e-3, atol=1e-4
  )


@pytest.mark.parametrize("part", ["encoder", "projector", "predictor"])
def test_unknown_norms_are_named_with_their_key(part):
  with pytest.raises(
    errors.UserError,
    match=rf"model\.{part}\.norm 'instance'.*batch, group, layer, none",
  ):
    shapes(tiny({f"model.{part}.norm": "instance"}))
