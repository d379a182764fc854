"""All protocols on small data sets, and which examples they choose on."""

import types

import numpy as np
import pytest

from byol_jax.data import registry
from byol_jax.evaluation import classifiers
from byol_jax.evaluation.eval_model import EvalModel
from byol_jax.evaluation.features import Features
from byol_jax.training import data_streams, runs
from tests.eval_cases import (
  CLASSES,
  measured,
  prepare,
  small_config,
  store_multi_label,
  untrained,
)


@pytest.fixture
def run(tmp_path):
  return prepare(tmp_path, small_config(tmp_path))


@pytest.mark.parametrize("protocol", ["knn", "linear", "logistic"])
def test_protocols_tell_colours_apart(run, protocol):
  ((name, result),) = measured(run, protocol).items()
  assert name == "top1"
  assert result["value"] > 0.8
  low, high = result["interval"]
  assert low <= result["value"] <= high
  if protocol != "knn":
    assert result["validation_examples"] == 11
    assert result["tried"] > 1


@pytest.mark.parametrize("protocol", ["linear", "logistic"])
def test_no_choice_depends_on_the_test_labels(run, protocol, monkeypatch):
  ((_, right),) = measured(run, protocol).items()
  features = EvalModel.features

  def mislabelled(model, split):
    found = features(model, split)
    if split != "test":
      return found
    return found._replace(labels=(found.labels + 1) % CLASSES)

  monkeypatch.setattr(EvalModel, "features", mislabelled)
  ((_, wrong),) = measured(run, protocol).items()
  for result in (right, wrong):
    for name in ("interval", "worst_class"):
      del result[name]
  assert right.pop("value") > wrong.pop("value")
  assert right == wrong


def test_a_protocol_is_not_told_the_test_split_while_it_chooses(
  run, monkeypatch
):
  seen = []
  features = EvalModel.features

  def watched(model, split):
    seen.append(split)
    return features(model, split)

  monkeypatch.setattr(EvalModel, "features", watched)
  measured(run, "linear")
  first = seen.index("test")
  assert set(seen[:first]) == {"train"}
  assert set(seen[first:]) == {"test"}


@pytest.mark.slow
def test_few_labels_and_all_of_them_train_the_encoder(run):
  few = measured(run, "semi_supervised", untrained)
  assert set(few) == {"50%_top1", "12_top1"}
  assert few["50%_top1"]["labels"] == 27  # Half of 53, of 42 to fit.
  assert few["12_top1"]["labels"] == 12
  assert few["12_top1"]["batch_size"] == 12
  for result in few.values():
    assert {"learning_rate", "epochs", "validation"} <= result.keys()
  run.config.evaluation.finetune.steps = 60
  ((_, result),) = measured(run, "finetune", untrained).items()
  assert result["value"] > 0.5  # Three classes: chance is a third.
  assert result["tried"] == 2
  assert result["weight_decay"] == 0


@pytest.mark.slow
def test_random_crops_go_through_the_frozen_encoder(run):
  run.config.evaluation.linear.crops = "random"
  ((_, result),) = measured(run, "linear", untrained).items()
  assert result["crops"] == "random"
  assert result["value"] > 0.4


def test_a_classifier_that_diverged_is_never_chosen():
  finite = Features(np.eye(2, dtype=np.float32), np.array([1, 0]))
  diverged = finite._replace(vectors=finite.vectors * np.nan)
  source = types.SimpleNamespace(dataset=registry.Dataset("x"))
  model = EvalModel(None, source, "", None, {})
  assert classifiers.validation_value(model, finite) == 0
  assert classifiers.validation_value(model, diverged) < 0


@pytest.mark.slow
def test_multi_label_images_are_scored_by_average_precision(run, tmp_path):
  store_multi_label(tmp_path)
  run.config.evaluation.dataset = "voc2007"
  for protocol in ("knn", "linear", "logistic"):
    ((name, result),) = measured(run, protocol).items()
    assert name == "map11"
    assert result["value"] > 0.8, protocol
  run.config.evaluation.finetune.steps = 40
  ((_, result),) = measured(run, "finetune", untrained).items()
  assert result["value"] > 0.6
  assert result["validation_examples"] == 15
  assert "class_alignment" in measured(run, "geometry")
  precision = measured(run, "retrieval")["precision_at_3"]["value"]
  assert 0.3 < precision < 1


def test_a_multi_label_data_set_can_be_pretrained_on(tmp_path):
  store_multi_label(tmp_path)
  cfg = small_config(tmp_path)
  cfg.data.dataset = "voc2007"
  run = runs.prepare(cfg, tmp_path)
  batch = next(data_streams.train_batches(run.config, run.source, 0))
  np.testing.assert_array_equal(batch["label"], -1)
