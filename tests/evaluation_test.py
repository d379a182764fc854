"""Features and nearest neighbours."""

import jax
import numpy as np
import pytest
from sklearn import neighbors

from byol_jax import errors
from byol_jax.evaluation import features, knn, neighbours
from byol_jax.evaluation.features import Features
from byol_jax.models.encode import make_encode
from tests import networks_test


def clusters(count, spread, seed):
  """Three classes around three directions."""
  rng = np.random.RandomState(seed)
  labels = rng.randint(0, 3, count).astype(np.int32)
  vectors = np.eye(3, 5)[labels] + spread * rng.randn(count, 5)
  return Features(vectors.astype(np.float32), labels)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 7, 13, 50])
def test_features_are_the_same_and_complete_for_any_batch_size(
  batch_size, tmp_path
):
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
  encode = make_encode(network, params, state)
  extracted = features.kept(
    tmp_path / "of", {}, 13, lambda: features.extract(encode, batches)
  )
  np.testing.assert_array_equal(extracted.labels, np.arange(13))
  np.testing.assert_allclose(
    extracted.vectors, expected.embedding, rtol=1e-4, atol=1e-5
  )


class Made:
  """Makes features of two batches, and counts how often it was asked to."""

  vectors = np.random.RandomState(0).randn(7, 3).astype(np.float32)
  times = 0

  def __call__(self):
    self.times += 1
    for part in (slice(0, 4), slice(4, 7)):
      yield Features(self.vectors[part], np.arange(7, dtype=np.int32)[part])


def check(found):
  np.testing.assert_array_equal(found.vectors, Made.vectors)
  np.testing.assert_array_equal(found.labels, np.arange(7))


def test_features_are_made_once_for_all_they_depend_on(tmp_path):
  made, folder = Made(), tmp_path / "features" / "train"
  for _ in range(2):
    check(features.kept(folder, {"step": (1, 2)}, 7, made))
  assert made.times == 1
  check(features.kept(folder, {"step": (1, 3)}, 7, made))
  assert made.times == 2
  assert [path.name for path in folder.parent.iterdir()] == ["train"]


def flip(path):
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize("name", ["vectors.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize(
  "damage",
  [flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")],
  ids=["flipped", "deleted", "emptied"],
)
def test_a_damaged_cache_is_noticed_and_made_anew(
  tmp_path, name, damage, caplog
):
  made = Made()
  features.kept(tmp_path / "train", {}, 7, made)
  if name == "about.json" and damage is flip:
    (tmp_path / "train" / name).write_text('{"about": {}}')
  else:
    damage(tmp_path / "train" / name)
  with caplog.at_level("WARNING"):
    check(features.kept(tmp_path / "train", {}, 7, made))
  assert made.times == 2
  assert "made anew" in caplog.text
  check(features.kept(tmp_path / "train", {}, 7, made))
  assert made.times == 2


def test_a_stream_of_another_length_is_no_split(tmp_path):
  with pytest.raises(RuntimeError, match="7 examples came where there are 8"):
    features.kept(tmp_path / "train", {}, 8, Made())


def test_features_that_cannot_be_written_are_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="Cannot write features") as info:
    features.kept(tmp_path / "file" / "train", {}, 7, Made())
  assert "\n" not in str(info.value)


def test_parameters_have_a_fingerprint():
  tree = {"a": np.arange(3.0), "b": np.zeros(2)}
  other = {"a": np.arange(3.0), "b": np.array([0, 1e-30])}
  assert features.fingerprint(tree) == features.fingerprint(dict(tree))
  assert features.fingerprint(tree) != features.fingerprint(other)


def test_pixels_are_the_images_flattened():
  images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
  np.testing.assert_array_equal(features.pixels(images)[1], np.arange(12, 24))


@pytest.mark.slow
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

  theirs = neighbors.KNeighborsClassifier(7, weights=weights)
  theirs.fit(neighbours.unit(train.vectors), train.labels)
  ours = knn.scores(
    train, test.vectors, k=7, temperature=temperature, num_classes=3
  )
  np.testing.assert_array_equal(
    np.argmax(ours, axis=1), theirs.predict(neighbours.unit(test.vectors))
  )
  assert 0.5 < np.mean(np.argmax(ours, axis=1) == test.labels) < 1


def test_neighbours_of_several_classes_vote_for_each():
  train, test = clusters(101, 0.6, seed=0), clusters(31, 0.6, seed=1)
  several = train._replace(labels=np.eye(3, dtype=np.int32)[train.labels])
  one, many = (
    knn.scores(bank, test.vectors, k=7, temperature=0.5, num_classes=3)
    for bank in (train, several)
  )
  np.testing.assert_allclose(one, many)
  # Comparable between queries, as average precision needs.
  np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-5)


def test_knn_of_a_tiny_temperature_is_the_nearest_neighbour():
  train, test = clusters(50, 0.5, seed=0), clusters(20, 0.5, seed=1)
  near, nearest = (
    knn.scores(train, test.vectors, k=k, temperature=t, num_classes=3)
    for k, t in ((50, 1e-4), (1, 1.0))
  )
  np.testing.assert_array_equal(*(np.argmax(x, 1) for x in (near, nearest)))
