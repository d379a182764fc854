"""Features of examples, from images to vectors."""

import jax
import numpy as np
import pytest

from byol_jax.evaluation import feature_cache, features
from byol_jax.models.encode import make_encode
from tests.network_cases import make_network


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 7, 13, 50])
def test_features_are_the_same_and_complete_for_any_batch_size(
  batch_size, tmp_path
):
  network = make_network(name="TinyResNet")
  rng = np.random.RandomState(0)
  images = rng.rand(13, 32, 32, 3).astype(np.float32)  # A prime number.
  params, state = network.init(jax.random.key(0), images, is_training=True)
  _, state = network.apply(params, state, images, is_training=True)
  expected, _ = network.apply(params, state, images, is_training=False)

  batches = (
    {
      "image": images[i : i + batch_size],
      "label": np.arange(13)[i : i + batch_size],
    }
    for i in range(0, 13, batch_size)
  )
  encode = make_encode(network, params, state)
  extracted = feature_cache.load_or_compute(
    tmp_path / "of", {}, 13, lambda: features.extract(encode, batches)
  )
  np.testing.assert_array_equal(extracted.labels, np.arange(13))
  np.testing.assert_allclose(
    extracted.vectors, expected.embedding, rtol=1e-4, atol=1e-5
  )


def test_pixels_are_flattened_images():
  images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
  np.testing.assert_array_equal(features.flatten(images)[1], np.arange(12, 24))


@pytest.mark.slow
def test_calibration_settles_an_untrained_encoder():
  network = make_network(name="TinyResNet")
  images = np.random.RandomState(0).rand(16, 32, 32, 3).astype(np.float32)
  params, state = network.init(jax.random.key(0), images, is_training=True)
  zeroed = jax.tree.map(np.zeros_like, state)
  settled = features.calibrated_state(
    network, params, zeroed, [{"image": images}] * 3
  )
  trained, _ = network.apply(params, zeroed, images, is_training=True)
  inferred, _ = network.apply(params, settled, images, is_training=False)
  np.testing.assert_allclose(
    inferred.embedding, trained.embedding, rtol=1e-3, atol=1e-4
  )


def test_padding_at_the_end_of_a_stream_is_cut_off():
  images = np.arange(24, dtype=np.float32).reshape(6, 1, 1, 4)
  batches = (
    {"image": images[i : i + 3], "label": np.arange(6)[i : i + 3]}
    for i in (0, 3)
  )
  parts = [*features.extract(features.flatten, batches, count=4)]
  labels = np.concatenate([part.labels for part in parts])
  np.testing.assert_array_equal(labels, np.arange(4))
  vectors = np.concatenate([part.vectors for part in parts])
  np.testing.assert_array_equal(vectors, images[:4].reshape(4, 4))
