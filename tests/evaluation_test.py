"""Features, nearest neighbours and the linear probe."""

import jax
import numpy as np
import pytest
from sklearn import neighbors

from byol_jax.evaluation import features, knn, linear
from byol_jax.evaluation.features import Features
from tests import networks_test


def clusters(count, spread, seed):
  """Three classes around three directions."""
  rng = np.random.RandomState(seed)
  labels = rng.randint(0, 3, count).astype(np.int32)
  vectors = np.eye(3, 5)[labels] + spread * rng.randn(count, 5)
  return Features(vectors.astype(np.float32), labels)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 13, 50])
def test_features_are_the_same_and_complete_for_any_batch_size(batch_size):
  network = networks_test.make_network(encoder="TinyResNet")
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
  extracted = features.extract(
    features.encoder(network, params, state), batches
  )
  np.testing.assert_array_equal(extracted.labels, np.arange(13))
  np.testing.assert_allclose(
    extracted.vectors, expected.embedding, rtol=1e-4, atol=1e-5
  )


def test_pixels_are_the_images_flattened():
  images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
  np.testing.assert_array_equal(features.pixels(images)[1], np.arange(12, 24))


def test_calibration_settles_an_untrained_encoder():
  network = networks_test.make_network(encoder="TinyResNet")
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


def test_knn_agrees_with_scikit_learns():
  train, test = clusters(101, 0.6, seed=0), clusters(301, 0.6, seed=1)
  temperature = 0.5

  def weights(distances):  # Of unit vectors: squared distance = 2 - 2 cosine.
    return np.exp((1 - distances**2 / 2) / temperature)

  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
  theirs = neighbors.KNeighborsClassifier(7, weights=weights)
  theirs.fit(unit(train.vectors), train.labels)
  ours = knn.predict(
    train, test.vectors, k=7, temperature=temperature, num_classes=3
  )
  np.testing.assert_array_equal(ours, theirs.predict(unit(test.vectors)))
  ((name, result),) = knn.run(
    train, test, k=7, temperature=temperature, num_classes=3
  )
  assert name == "top1"
  assert result["value"] == np.mean(ours == test.labels)
  assert 0.5 < result["value"] < 1


def test_knn_of_a_tiny_temperature_is_the_nearest_neighbour():
  train, test = clusters(50, 0.5, seed=0), clusters(20, 0.5, seed=1)
  near, nearest = (
    knn.predict(train, test.vectors, k=k, temperature=t, num_classes=3)
    for k, t in ((50, 1e-4), (1, 1.0))
  )
  np.testing.assert_array_equal(near, nearest)


def linear_top1(train, test, **changes):
  options = dict(l2_range=(1e-2, 1e4), l2_count=4, holdout=0.2, seed=0)
  ((name, result),) = linear.run(train, test, **(options | changes))
  assert name == "top1"
  return result


def test_linear_probe_separates_what_can_be_separated():
  result = linear_top1(clusters(200, 0.05, seed=0), clusters(50, 0.05, seed=1))
  assert result["value"] == 1.0
  assert result["holdout_examples"] == 40


def test_linear_probe_chooses_without_the_test_split():
  """Other test labels change the figure and nothing that was chosen."""
  train, test = clusters(200, 0.5, seed=0), clusters(50, 0.5, seed=1)
  wrong = test._replace(labels=(test.labels + 1) % 3)
  right, other = linear_top1(train, test), linear_top1(train, wrong)
  assert right.pop("value") > other.pop("value")
  assert right == other


def test_linear_probe_prefers_the_better_strength():
  """With one class rare, too strong a probe sees only the common one."""
  rng = np.random.RandomState(0)
  labels = (rng.rand(300) < 0.1).astype(np.int32)
  vectors = labels[:, None] + 0.1 * rng.randn(300, 2)
  rare = Features(vectors.astype(np.float32), labels)
  result = linear_top1(rare, rare, l2_range=(1e-1, 1e9), l2_count=2)
  assert result["l2"] == pytest.approx(1e-1)
  assert result["value"] > 0.98
