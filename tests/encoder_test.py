"""Exported encoders take images in several forms, and refuse all others."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.interop import encoder as encoder_lib
from byol_jax.interop import encoder_file
from tests import encoder_cases

BYTES = encoder_cases.images(2)
FLOATS = BYTES.astype(np.float32) / 255


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
  encoder_cases.save(path)
  return path


@pytest.fixture(scope="module")
def encoder(path):
  return encoder_file.load(path)


@pytest.fixture(scope="module")
def vectors(encoder):
  return encoder.encode(FLOATS)


@pytest.mark.parametrize(
  ("form", "tolerance"),
  [
    (lambda: BYTES, 1e-5),
    (lambda: jnp.asarray(BYTES), 1e-5),
    (lambda: FLOATS.astype(np.float64), 1e-5),
    (lambda: FLOATS.tolist(), 1e-5),
    (lambda: FLOATS + np.float32(5e-4), 0.01),  # Rounding above 1.
    (lambda: FLOATS.astype(np.float16), 0.01),
    (lambda: FLOATS.astype(jnp.bfloat16), 0.05),
    (lambda: jnp.asarray(FLOATS, jnp.bfloat16), 0.05),
  ],
)
def test_every_form_of_an_image_gives_its_features(
  encoder, vectors, form, tolerance
):
  found = encoder.encode(form())
  assert isinstance(found, jax.Array) == isinstance(form(), jax.Array)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, vectors, rtol=tolerance)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
@pytest.mark.parametrize(
  ("form", "expected"),
  [
    (lambda x: x * 255, "from 0 to 255"),
    (lambda x: (x - 0.5) / 0.2, "from -2.5 to 2.5"),
    (lambda x: np.where(x == 1, np.nan, x), "from nan to nan"),
    (lambda x: np.where(x == 1, np.inf, x), "to inf"),
    (lambda x: x.astype(np.int32), "of type int32"),
    (lambda x: x > 0.5, "of type bool"),
    (lambda x: x.transpose(0, 3, 1, 2), r"transpose\(0, 2, 3, 1\)"),
    (lambda x: x[0].transpose(2, 0, 1), r"give images.transpose\(1, 2, 0\)"),
    (lambda x: x[:, ::2, ::2], r"shape \(2, 16, 16, 3\).*encoder.prepare"),
    (lambda x: x[0, 1:], r"shape \(31, 32, 3\).*encoder.prepare"),
    (lambda x: x[..., 0], r"many grey images as images\[..., None\]"),
    (lambda x: x[..., [0, 1, 2, 2]], "leave their transparency out"),
    (lambda x: x[..., [0, 1]], "leave their transparency out"),
    (lambda x: x[None], r"shape \(1, 2, 32, 32, 3\)"),
    (lambda x: x[0, 0, 0, 0], r"shape \(\)"),
  ],
)
def test_other_images_are_refused_in_one_line(encoder, kind, form, expected):
  with pytest.raises(errors.UserError, match=expected) as raised:
    encoder.encode(kind(form(FLOATS)))
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  ("images", "expected"),
  [
    ([FLOATS[0], FLOATS[0, 1:]], "cannot be read as one array"),
    (FLOATS.astype(object), "of type object"),
    (FLOATS.astype(np.float64) * 1e300, "to inf"),
  ],
)
def test_what_is_no_array_of_numbers_is_refused(encoder, images, expected):
  with pytest.raises(errors.UserError, match=expected):
    encoder.feature_map(images)


def test_many_images_are_computed_in_batches(path, monkeypatch):
  """Of 2 on each of two devices: 4 and 1."""
  monkeypatch.setattr(encoder_lib, "_IMAGES_TOGETHER", 2)
  many = encoder_cases.images(5)
  found = encoder_file.load(path)
  np.testing.assert_allclose(
    found.encode(many), found.encode(jnp.asarray(many)), rtol=1e-5
  )


def test_no_images_have_no_features(encoder, vectors):
  for kind in (np, jnp):
    none = kind.zeros((0, 32, 32, 3))
    assert encoder.encode(none).shape == (0, vectors.shape[1])


@pytest.mark.slow
def test_an_encoder_is_part_of_a_jax_program(encoder, vectors):
  images = jnp.asarray(FLOATS)
  np.testing.assert_allclose(
    jax.jit(encoder.encode)(images), vectors, rtol=1e-5
  )
  for one in (images, images[:, None]):
    each = jax.eval_shape(jax.vmap(encoder.encode), one)
    assert each.shape == (*one.shape[:-3], vectors.shape[1])
  with pytest.raises(errors.UserError, match="prepare"):
    jax.jit(encoder.encode)(images[:, 1:])

  def loss(images):
    return jnp.sum(jnp.square(encoder.encode(images)))

  images = jnp.clip(images, 0.1, 0.9)  # A step stays in the range.
  gradient = jax.grad(loss)(images)
  step = 0.01 * gradient / jnp.linalg.norm(gradient)
  np.testing.assert_allclose(
    loss(images + step) - loss(images - step),
    2 * jnp.vdot(gradient, step),
    rtol=0.02,
  )


@pytest.mark.slow
def test_apply_is_pure_and_differentiable_in_the_parameters(encoder, vectors):
  images = jnp.asarray(FLOATS)
  params = encoder.params

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss_and_gradient(params):
    found = encoder.apply(params, images)
    return jnp.sum(jnp.square(found)), found

  (value, found), gradient = loss_and_gradient(params)
  np.testing.assert_allclose(found, vectors, rtol=1e-5)
  step = 1e-3 / np.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
  moved = jax.tree.map(lambda x, g: x - step * g, params, gradient)
  (lower, _), _ = loss_and_gradient(moved)
  assert 0 < lower < value


def test_apply_runs_on_several_devices(encoder, vectors):
  on_devices = jax.pmap(encoder.apply, in_axes=(None, 0))
  found = on_devices(encoder.params, FLOATS[:, None])  # One image on each.
  np.testing.assert_allclose(found[:, 0], vectors, rtol=1e-5)


def test_one_image_gives_one_vector_and_one_map(encoder, vectors):
  one = FLOATS[0]
  for found in (
    encoder.encode(one),
    encoder.encode(jnp.asarray(one)),
    encoder.apply(encoder.params, one),
  ):
    np.testing.assert_allclose(found, vectors[0], rtol=1e-5)
  np.testing.assert_allclose(
    encoder.feature_map(one), encoder.feature_map(FLOATS)[0], rtol=1e-5
  )


def test_a_grey_image_is_one_of_three_equal_channels(encoder):
  grey = BYTES[..., :1]
  expected = encoder.encode(np.repeat(grey, 3, axis=-1))
  np.testing.assert_allclose(encoder.encode(grey), expected, rtol=1e-5)
  np.testing.assert_allclose(
    encoder.encode(grey[0, ..., 0]), expected[0], rtol=1e-5
  )


def test_each_stage_has_a_map(encoder):
  """On 32 pixels the ImageNet stem makes 8, and each later group halves them."""
  shapes = {"stem": (8, 64), "group_0": (8, 8), "group_1": (4, 8)}
  shapes |= {"group_2": (2, 8), "group_3": (1, 8), "final": (1, 8)}
  for stage, (side, channels) in shapes.items():
    found = jax.eval_shape(
      functools.partial(encoder.feature_map, stage=stage), jnp.asarray(FLOATS)
    )
    assert found.shape == (2, side, side, channels)
  with pytest.raises(errors.UserError, match="'group_4' is unknown"):
    encoder.feature_map(FLOATS, stage="group_4")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_stages_are_those_that_the_next_layers_take(tmp_path, version):
  """The last group and what follows it, computed from the group before."""
  encoder_cases.save(tmp_path / "encoder", version=version)
  encoder = encoder_file.load(tmp_path / "encoder")
  last, final = (
    encoder.feature_map(FLOATS, stage) for stage in ("group_3", "final")
  )
  if version == "v1":
    np.testing.assert_array_equal(last, final)
    return
  scale, offset = (
    encoder.params["tiny_res_net/~/final_batchnorm"][name]
    for name in ("scale", "offset")
  )
  statistics = encoder.variables[1]
  mean, var = (
    statistics[f"tiny_res_net/~/final_batchnorm/~/{name}_ema"]["average"]
    for name in ("mean", "var")
  )
  normed = (last - mean) / np.sqrt(var + 1e-5) * scale + offset
  np.testing.assert_allclose(
    np.maximum(normed.reshape(final.shape), 0), final, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_mean_of_a_feature_map_is_the_vector(tmp_path, version):
  encoder_cases.save(tmp_path / "encoder", stem="cifar", version=version)
  encoder = encoder_file.load(tmp_path / "encoder")
  maps = encoder.feature_map(FLOATS)
  assert isinstance(maps, np.ndarray)
  assert maps.shape == (2, 4, 4, 8)
  assert np.ptp(maps, axis=(1, 2)).min() > 0
  np.testing.assert_allclose(
    maps.mean((1, 2)), encoder.encode(FLOATS), rtol=1e-5
  )


def test_the_vector_of_a_flattening_encoder_is_its_map_in_order(tmp_path):
  encoder_cases.save(tmp_path / "encoder", stem="cifar", pooling="flatten")
  encoder = encoder_file.load(tmp_path / "encoder")
  maps = encoder.feature_map(FLOATS)
  np.testing.assert_allclose(
    maps.reshape(2, -1), encoder.encode(FLOATS), rtol=1e-5
  )


def test_an_encoder_is_loaded_and_used_in_any_thread(path, vectors):
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    found = pool.submit(lambda: encoder_file.load(path).encode(FLOATS)).result()
  np.testing.assert_array_equal(found, vectors)
