"""The choice of a few labelled examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=200, deadline=None)
@given(
  labels=st.lists(st.integers(0, 5), min_size=1, max_size=60),
  wanted=st.floats(0.01, 80),
  seed=st.integers(0, 2**31),
)
def test_subsets_keep_the_proportions_of_any_classes(labels, wanted, seed):
  labels = np.array(labels, np.int32)
  chosen = stratified(labels, wanted, seed)
  assert np.all(np.diff(chosen) > 0)  # Sorted, each once.
  assert chosen[0] >= 0
  assert chosen[-1] < len(labels)
  classes, counts = np.unique(labels, return_counts=True)
  found, of_each = np.unique(labels[chosen], return_counts=True)
  np.testing.assert_array_equal(found, classes)  # At least one of each.
  exact = counts * min(wanted / len(labels), 1)
  assert np.all(np.abs(of_each - np.maximum(exact, 1)) <= 0.5 + 1e-9)


@given(count=st.integers(1, 40), wanted=st.integers(1, 50))
def test_multi_label_subsets_have_the_wanted_size(count, wanted):
  labels = np.zeros((count, 3), np.int32)
  assert len(stratified(labels, wanted, seed=0)) == min(wanted, count)
