"""Losses and accuracies by hand-computed numbers."""

import jax.numpy as jnp
import numpy as np

from byol_jax.learning import losses


def test_regression_loss_is_two_minus_two_cosines():
  prediction = jnp.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
  projection = jnp.array([[5.0, 0.0], [4.0, 3.0], [0.0, -1.0], [-1.0, 1.0]])
  np.testing.assert_allclose(
    losses.regression_loss(prediction, projection),
    [0.0, 2 - 2 * 24 / 25, 4.0, 2.0],
    atol=1e-6,
  )


def test_regression_loss_of_a_zero_vector_is_finite():
  zero, one = jnp.zeros((1, 2)), jnp.ones((1, 2))
  np.testing.assert_allclose(losses.regression_loss(zero, one), [2.0])


def test_cross_entropy_by_hand():
  logits = jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5], [0.1, 0.9]]))
  labels = jnp.array([1, 0, -1])
  np.testing.assert_allclose(
    losses.softmax_cross_entropy(logits, labels),
    [-np.log(0.8), -np.log(0.5), 0.0],
    rtol=1e-6,
  )


def test_topk_counts_the_label_among_the_largest():
  logits = jnp.array([[0.1, 0.5, 0.4]] * 4)
  labels = jnp.array([1, 2, 0, -1])
  for k, expected in ((1, [1, 0, 0, 0]), (2, [1, 1, 0, 0]), (5, [1, 1, 1, 0])):
    np.testing.assert_array_equal(
      losses.topk_correct(logits, labels, k), expected
    )


def test_constant_and_undefined_logits_are_not_correct():
  labels = jnp.array([0, 1])
  for value in (0.0, jnp.nan):
    logits = jnp.full((2, 10), value)
    np.testing.assert_array_equal(
      losses.topk_correct(logits, labels, 5), [0, 0]
    )
