"""Metrics of class scores."""

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.evaluation import metrics


@pytest.mark.parametrize("metric", metrics.METRICS)
def test_perfect_scores_are_worth_1(metric):
  labels = np.array([0, 1, 1, 2, 2, 2])
  perfect = np.eye(3)[labels]
  given = perfect.astype(np.int32) if metric == "map11" else labels
  result = metrics.value_and_interval(
    metric, given, perfect, seed=0, class_names="abc"
  )
  assert result["value"] == 1
  assert result["interval"] == [1, 1]
  assert result["worst_class"][1] == 1


def test_metrics_are_those_of_their_names():
  labels = np.array([0, 0, 0, 1])
  always = np.array([[1.0, 0.0]] * 4)
  assert metrics.value("top1", labels, always) == 0.75
  assert metrics.value("mean_per_class", labels, always) == 0.5
  # Found first, third: precisions 1 up to recall 1/2, then 2/3.
  there = np.array([[1], [0], [1], [0]])
  falling = np.array([[4.0], [3.0], [2.0], [1.0]])
  expected = (6 * 1 + 5 * 2 / 3) / 11
  assert metrics.value("map11", there, falling) == pytest.approx(expected)
  with pytest.raises(errors.UserError, match="top1, mean_per_class, map11"):
    metrics.value("top5", labels, always)


def test_the_worst_class_is_told_by_its_name():
  labels = np.array([0, 0, 1, 1, 2])
  scores = np.eye(3)[[0, 0, 1, 0, 2]]
  result = metrics.value_and_interval(
    "top1", labels, scores, 0, ["cat", "dog", "owl"]
  )
  assert result["worst_class"] == ["dog", 0.5]


def test_an_interval_holds_the_true_value_as_often_as_it_says():
  """Test sets of 200 examples, a classifier that is right in 80 of 100."""
  random = np.random.RandomState(0)
  inside = 0
  for seed in range(100):
    right = random.rand(200) < 0.8
    found = np.eye(2)[right.astype(int)]
    low, high = metrics.value_and_interval(
      "top1", np.ones(200, int), found, seed, ["a", "b"]
    )["interval"]
    inside += low <= 0.8 <= high
  assert 88 <= inside <= 100
