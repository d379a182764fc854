"""The choice of a few labelled examples."""

import numpy as np
import pytest

from byol_jax.evaluation.semi_supervised import stratified


@pytest.mark.parametrize(
  ("wanted", "of_each"), [(50, 5), (1, 1), (30, 3), (450, 45)]
)
def test_subsets_are_stratified_and_seeded(wanted, of_each):
  labels = np.repeat(np.arange(10), 50)
  chosen = stratified(labels, wanted, seed=0)
  np.testing.assert_array_equal(np.bincount(labels[chosen]), [of_each] * 10)
  assert len(set(chosen)) == len(chosen)
  again = stratified(labels, wanted, seed=0)
  np.testing.assert_array_equal(chosen, again)
  assert np.any(chosen != stratified(labels, wanted, seed=1))
