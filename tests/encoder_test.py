"""Exported encoders take images in several forms, and refuse all others."""

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import errors
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
    (lambda x: x[0], r"one image as images\[None\]"),
    (lambda x: x[:, ::2, ::2], "from 16 x 16 to 32 x 32 pixels"),
    (lambda x: x[..., :1], r"\(2, 32, 32, 1\)"),
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
  each = jax.eval_shape(jax.vmap(encoder.encode), images[:, None])
  assert each.shape == (2, 1, vectors.shape[1])
  with pytest.raises(errors.UserError, match="resize them"):
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
  params, state = encoder.variables

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss_and_gradient(params):
    encoded = encoder.apply((params, state), images)
    return jnp.sum(jnp.square(encoded.embedding)), encoded

  (value, encoded), gradient = loss_and_gradient(params)
  np.testing.assert_allclose(encoded.embedding, vectors, rtol=1e-5)
  np.testing.assert_allclose(
    encoded.feature_map, encoder.feature_map(FLOATS), rtol=1e-4, atol=1e-6
  )
  step = 1e-3 / np.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
  moved = jax.tree.map(lambda x, g: x - step * g, params, gradient)
  (lower, _), _ = loss_and_gradient(moved)
  assert 0 < lower < value


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
