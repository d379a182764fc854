"""How features are distributed."""

import numpy as np
import pytest

from byol_jax.evaluation import geometry
from byol_jax.evaluation.features import Features


def test_metrics_of_known_distributions():
  random = np.random.RandomState(0)
  flat = random.randn(500, 2) @ random.randn(2, 16)
  round_ = random.randn(500, 16)
  assert geometry.rank_me(flat) < 2.1
  assert geometry.rank_me(round_) > 14
  one = np.tile([[1.0, 0.0]], (10, 1))
  assert geometry.uniformity(one) == 0
  opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
  assert geometry.uniformity(opposite) == pytest.approx(-8)
  assert geometry.alignment(opposite, np.array([0, 0])) == pytest.approx(4)
  assert np.isnan(geometry.alignment(opposite, np.array([0, 1])))
  names = dict(geometry.measure(Features(round_, np.zeros(500)), seed=0))
  assert set(names) == {"rank_me", "uniformity", "class_alignment"}
