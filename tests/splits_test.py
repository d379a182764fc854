"""The examples of an evaluation: to fit to, to validate on, to test on."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byol_jax import errors
from byol_jax.evaluation import eval_model, protocols
from byol_jax.evaluation.eval_model import EvalModel
from byol_jax.evaluation.splits import (
  Splits,
  check_labels,
  hold_out,
  make_splits,
)
from tests.eval_cases import prepare, small_config


@pytest.fixture
def run(tmp_path):
  return prepare(tmp_path, small_config(tmp_path))


def test_the_end_of_train_is_held_out(run):
  splits = make_splits(run, run.source)
  assert splits == Splits("train", range(42), range(42, 53), "test")
  run.config.evaluation.train_split = "train[:20]"
  run.config.evaluation.test_split = "train[20:]"
  splits = make_splits(run, run.source)
  assert splits.train == "train[:20]"
  assert (splits.fit, splits.validation) == (range(16), range(16, 20))


def test_an_official_validation_split_is_chosen_on(tmp_path):
  run = prepare(tmp_path, small_config(tmp_path), train=9, validation=6, test=5)
  described = run.source.dataset._replace(validation="validation")
  source = run.source._replace(dataset=described)
  splits = make_splits(run, source)
  assert splits.train == "train+validation"
  assert (splits.fit, splits.validation) == (range(9), range(9, 15))
  both = eval_model.pixels(run, source).features(splits.train)
  alone = eval_model.pixels(run, source).features("validation")
  np.testing.assert_array_equal(both.vectors[9:], alone.vectors)


@pytest.mark.parametrize(
  ("metric", "rule"),
  [("topp1", "top1, mean_per_class"), ("map11", "top1 or mean_per_class")],
)
def test_a_metric_that_does_not_fit_is_told_before_training(run, metric, rule):
  run.config.evaluation.metric = metric
  with pytest.raises(errors.UserError, match=rule) as raised:
    protocols.selected(run)
  assert f"{metric}" in str(raised.value)
  assert "\n" not in str(raised.value)


def test_the_test_split_must_not_be_learnt_from(run):
  run.config.evaluation.train_split = "train+test[:4]"
  with pytest.raises(errors.UserError, match="4 examples of the test split"):
    protocols.selected(run)


@pytest.mark.parametrize(
  ("key", "split"), [("train_split", "train[:1]"), ("test_split", "test[:0]")]
)
def test_splits_that_are_too_small_are_one_line(run, key, split):
  setattr(run.config.evaluation, key, split)
  with pytest.raises(errors.UserError, match=re.escape(split)):
    protocols.selected(run)


def test_examples_without_labels_are_refused(run, monkeypatch):
  features = EvalModel.features

  def unlabelled(model, split):
    found = features(model, split)
    return found._replace(labels=np.where(found.labels == 1, -1, found.labels))

  model = eval_model.pixels(run, run.source)
  splits = make_splits(run, run.source)
  check_labels(model, splits)
  monkeypatch.setattr(EvalModel, "features", unlabelled)
  with pytest.raises(errors.UserError, match="'train' of cifar10 have no"):
    check_labels(model, splits)


@given(
  size=st.integers(2, 10**7),
  fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_fit_and_validation_partition_the_train_split(size, fraction):
  fit, validation = hold_out(size, fraction)
  assert fit.start == 0
  assert fit.stop == validation.start
  assert validation.stop == size
  assert min(len(fit), len(validation)) >= 1
  assert abs(len(validation) - fraction * size) <= 1
