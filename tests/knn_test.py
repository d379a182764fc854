"""The votes of nearest neighbours."""

import numpy as np
from sklearn import neighbors

from byol_jax.evaluation import knn, neighbours
from tests.eval_cases import clusters


def test_knn_agrees_with_scikit_learns():
  train, test = clusters(101, 0.6, seed=0), clusters(301, 0.6, seed=1)
  temperature = 0.5

  def weights(distances):  # Of unit vectors: squared distance = 2 - 2 cosine.
    return np.exp((1 - distances**2 / 2) / temperature)

  theirs = neighbors.KNeighborsClassifier(7, weights=weights)
  theirs.fit(neighbours.l2_normalize(train.vectors), train.labels)
  ours = knn.votes(
    train, test.vectors, k=7, temperature=temperature, num_classes=3
  )
  np.testing.assert_array_equal(
    np.argmax(ours, axis=1),
    theirs.predict(neighbours.l2_normalize(test.vectors)),
  )
  assert 0.5 < np.mean(np.argmax(ours, axis=1) == test.labels) < 1


def test_multi_label_neighbours_vote_for_each_class():
  train, test = clusters(101, 0.6, seed=0), clusters(31, 0.6, seed=1)
  multi_label = train._replace(labels=np.eye(3, dtype=np.int32)[train.labels])
  one, many = (
    knn.votes(bank, test.vectors, k=7, temperature=0.5, num_classes=3)
    for bank in (train, multi_label)
  )
  np.testing.assert_allclose(one, many)
  # Comparable between queries, as average precision needs.
  np.testing.assert_allclose(one.sum(axis=1), 1, rtol=1e-5)


def test_knn_of_a_tiny_temperature_is_the_nearest_neighbour():
  train, test = clusters(50, 0.5, seed=0), clusters(20, 0.5, seed=1)
  near, nearest = (
    knn.votes(train, test.vectors, k=k, temperature=t, num_classes=3)
    for k, t in ((50, 1e-4), (1, 1.0))
  )
  np.testing.assert_array_equal(*(np.argmax(x, 1) for x in (near, nearest)))
