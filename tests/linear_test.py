"""Linear heads on features: by SGD, and by L-BFGS."""

import warnings

import jax
import numpy as np
import optax
import pytest
from sklearn import datasets as sklearn_datasets
from sklearn import linear_model

from byol_jax.evaluation import heads, linear, logistic
from byol_jax.evaluation.features import Features
from tests.eval_cases import clusters

RATES = (0.3, 1.0, 0.05)


def batches(count, labels=None, seed=0):
  random = np.random.RandomState(seed)
  for _ in range(count):
    examples = clusters(16, 0.3, seed=random.randint(1000))
    given = examples.labels
    yield (
      examples.vectors,
      np.eye(3)[given] if labels == "multi-label" else given,
    )


def fit(rates, steps=30, **kwargs):
  return linear.fit(
    batches(steps, **kwargs),
    learning_rates=rates,
    total_steps=steps,
    num_features=5,
    num_classes=3,
  )


def test_a_grid_in_one_pass_equals_separate_runs():
  together = fit(RATES)
  for i, rate in enumerate(RATES):
    alone = fit([rate])
    for ours, theirs in zip(together, alone, strict=True):
      np.testing.assert_allclose(ours[i], theirs[0], rtol=1e-5, atol=1e-6)


def test_a_layer_is_trained_as_optax_would():
  schedule = optax.cosine_decay_schedule(0.3, 30)
  optimizer = optax.sgd(schedule, momentum=0.9, nesterov=True)
  head = heads.new_head(5, 3)
  state = optimizer.init(head)
  for vectors, labels in batches(30):
    grads = jax.grad(heads.loss)(head, vectors, labels)
    updates, state = optimizer.update(grads, state)
    head = optax.apply_updates(head, updates)
  np.testing.assert_allclose(fit([0.3]).w[0], head.w, rtol=1e-4, atol=1e-5)


def test_a_rate_that_diverges_leaves_the_others_alone():
  layers = fit([0.3, 1e38])
  assert not np.all(np.isfinite(layers.w[1]))
  np.testing.assert_allclose(layers.w[0], fit([0.3]).w[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", [None, "multi-label"])
def test_separable_classes_are_separated(labels):
  (head,) = heads.unstack(fit([1.0], steps=100, labels=labels))
  test = clusters(200, 0.05, seed=9)
  found = np.argmax(heads.logits(head, test.vectors), axis=1)
  assert np.mean(found == test.labels) == 1


@pytest.fixture(scope="module")
def digits():
  """1,797 real digits of 8x8 pixels, standardised, two thirds for testing."""
  vectors, labels = sklearn_datasets.load_digits(return_X_y=True)
  scaled = logistic.fit_standardizer(vectors)(vectors).astype(np.float32)
  both = Features(scaled, labels.astype(np.int32))
  return both.select(range(597)), both.select(range(597, len(labels)))


def test_standardised_features_have_mean_0_and_variance_1():
  vectors = 3 + 2 * np.random.RandomState(0).randn(50, 4)
  vectors[:, 0] = 7
  scaled = logistic.fit_standardizer(vectors)(vectors)
  np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-12)
  np.testing.assert_allclose(scaled.std(axis=0), [0, 1, 1, 1], atol=1e-12)


def test_logistic_regression_agrees_with_scikit_learns(digits):
  train, test = digits
  strengths = [300.0, 30.0, 1.0, 0.1]
  layers = logistic.regularization_path(train, strengths, 10)
  for l2, head in zip(strengths, layers, strict=True):
    theirs = linear_model.LogisticRegression(C=1 / l2, tol=1e-6, max_iter=5000)
    theirs.fit(train.vectors, train.labels)
    ours = np.argmax(heads.logits(head, test.vectors), axis=1)
    accuracy = np.mean(ours == test.labels)
    # Of 1,200 test digits, one at most.
    assert abs(accuracy - theirs.score(*test)) < 1e-3 + 1e-9, l2
    if l2 >= 30:  # Below, the minimum is too flat for weights to agree.
      np.testing.assert_allclose(head.w, theirs.coef_.T, atol=2e-2)


def test_multi_label_logistic_regression_is_one_per_class(digits):
  train, test = digits
  multi_label = train._replace(labels=np.eye(10, dtype=np.int32)[train.labels])
  (head,) = logistic.regularization_path(multi_label, [300.0], 10)
  theirs = linear_model.LogisticRegression(C=1 / 300, tol=1e-6, max_iter=5000)
  theirs.fit(train.vectors, train.labels == 3)
  ours = heads.logits(head, test.vectors)[:, 3] > 0
  assert np.mean(ours == theirs.predict(test.vectors)) > 0.997
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # Nothing overflowed.
    assert np.all(np.isfinite(head.w))
