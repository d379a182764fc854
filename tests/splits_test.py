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
  describe,
  file_name,
  hold_out,
  make_splits,
  open_source,
)
from tests.eval_cases import prepare, small_config, store_colours


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


def described(run):
  source = open_source(run)
  return describe(run, source, make_splits(run, source))


def test_the_use_of_each_split_is_told(tmp_path, run):
  assert described(run) == (
    "train (53 images): pretraining, fitting, choosing on the last 11;"
    " test (31 images): scoring."
  )
  assert describe(run, run.source, None) == (
    "train (53 images): pretraining; test (31 images): not used."
  )
  store_colours(tmp_path, name="my_own", train=9, validation=6, test=5)
  run.config.evaluation.dataset = "tfds:my_own"
  assert described(run) == (
    "train (53 images): pretraining; my_own train (9 images): fitting; my_own"
    " validation (6 images): choosing; my_own test (5 images): scoring; test"
    " (31 images): not used."
  )


def test_without_labels_the_split_to_search_is_told(run):
  source = run.source._replace(class_names=[])
  assert describe(run, source, make_splits(run, source)) == (
    "train (53 images): pretraining, evaluating; test (31 images): not used."
  )


def test_a_folder_that_moves_keeps_the_names_of_its_files(run):
  names = set()
  for path in ("/job1/photos", "/job2/photos"):
    dataset = run.source.dataset._replace(tfds_name=path)
    names.add(file_name(run.source._replace(dataset=dataset), "test"))
  (name,) = names
  assert name.startswith("photos_test_")


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
