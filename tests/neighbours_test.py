"""Nearest neighbours in a bank."""

import numpy as np
import pytest

from byol_jax.evaluation import neighbours
from tests.eval_cases import brute_force, noise


@pytest.mark.parametrize(
  ("count", "size", "k"), [(1, 7, 7), (5, 31, 1), (256, 40, 3), (521, 33, 10)]
)
@pytest.mark.parametrize("chunk", [2**14, 12])
def test_nearest_agrees_with_brute_force(monkeypatch, count, size, k, chunk):
  """However large the parts are that the bank and the queries are read in."""
  monkeypatch.setattr(neighbours, "_BANK_CHUNK", chunk)
  monkeypatch.setattr(neighbours, "_QUERY_CHUNK", 2 * chunk)
  queries, bank = noise(count, seed=0), 3 * noise(size, seed=1)
  indices, cosines = neighbours.nearest(queries, bank, k=k)
  expected_indices, expected_cosines = brute_force(queries, bank, k)
  assert (indices.dtype, cosines.dtype) == (np.int32, np.float32)
  np.testing.assert_array_equal(indices, expected_indices)
  np.testing.assert_allclose(cosines, expected_cosines, atol=1e-6)


def test_an_example_is_not_its_own_neighbour():
  bank = noise(301, seed=0)
  indices, cosines = neighbours.nearest(
    bank, bank, k=4, self_indices=np.arange(301)
  )
  expected_indices, expected_cosines = brute_force(bank, bank, 5)
  np.testing.assert_array_equal(indices, expected_indices[:, 1:])
  np.testing.assert_allclose(cosines, expected_cosines[:, 1:], atol=1e-6)


def test_a_duplicate_is_a_neighbour():
  """Even of an example that its duplicates hide from its own search."""
  bank = np.concatenate([noise(3, seed=0), np.ones((5, 5), np.float32)])
  indices, cosines = neighbours.nearest(
    bank, bank, k=2, self_indices=np.arange(8)
  )
  assert not np.any(indices == np.arange(8)[:, None])
  assert np.all(indices[3:] >= 3)
  np.testing.assert_allclose(cosines[3:], 1, atol=1e-6)
