"""Evaluations while training: what they read, measure and keep."""

import json

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.evaluation import eval_model, geometry, knn, monitor
from byol_jax.evaluation.features import Features
from byol_jax.training import data_streams, saver
from tests.eval_cases import prepare, settled_state, small_config


def config_of(folder):
  cfg = small_config(folder)
  cfg.evaluation.every_epochs = (
    20.0  # Of 53 images: all of them fit in a tenth.
  )
  return cfg


def test_a_sample_is_measured_as_by_the_protocols_without_the_test_split(
  tmp_path, monkeypatch
):
  run = prepare(tmp_path, config_of(tmp_path))
  state = settled_state(run)
  read = []
  eval_batches = data_streams.eval_batches

  def recorded(config, source, split, **options):
    read.append((split, options["indices"]))
    return eval_batches(config, source, split, **options)

  monkeypatch.setattr(data_streams, "eval_batches", recorded)
  watch = monitor.Monitor(run)
  assert [step for step in range(1, 300) if watch.is_due(step)] == [132, 264]
  found = watch(state)
  assert read == [("train", range(53))]

  features = eval_model.online(run, run.source, state).features("train")
  bank, queries = (
    Features(*(np.asarray(x)[rows] for x in features))
    for rows in (slice(42), slice(42, 53))
  )
  votes = knn.votes(bank, queries.vectors, k=5, temperature=0.07, num_classes=3)
  right = np.mean(np.argmax(votes, axis=1) == queries.labels)
  assert found["held_out/knn"] == pytest.approx(right)
  assert found["held_out/rank_me"] == pytest.approx(
    geometry.rank_me(queries.vectors), rel=1e-4
  )
  lines = (run.workdir / "evaluations.jsonl").read_text().splitlines()
  assert json.loads(lines[-1]) == {"step": int(state.step), **found}


def test_examples_of_unknown_class_neither_vote_nor_count(
  tmp_path, monkeypatch
):
  run = prepare(tmp_path, config_of(tmp_path))
  found = Features(
    np.eye(53, 4, dtype=np.float32) + 1, np.arange(53, dtype=np.int32) % 4 - 1
  )
  watch = monitor.Monitor(run)
  monkeypatch.setattr(watch, "_features", lambda state: found)
  votes = []

  def of(bank, queries, **unused):
    votes.append((bank.labels.min(), len(queries)))
    return np.zeros((len(queries), 3))

  monkeypatch.setattr(knn, "votes", of)
  watch(settled_state(run))
  assert votes == [(0, np.sum(found.labels[42:] >= 0))]


def test_the_sample_is_a_tenth_of_the_images_between_two_evaluations(tmp_path):
  cfg = config_of(tmp_path)
  cfg.evaluation.every_epochs = 3.0
  watch = monitor.Monitor(prepare(tmp_path, cfg))
  assert len(watch._bank) + len(watch._queries) == pytest.approx(16, abs=1)
  assert len(watch._bank) > 3 * len(watch._queries)


def test_a_best_checkpoint_needs_labels(tmp_path):
  cfg = config_of(tmp_path)
  cfg.checkpoint.keep_best = True
  run = prepare(tmp_path, cfg)
  unlabelled = run._replace(source=_WithoutLabels(run.source))
  with pytest.raises(errors.UserError, match="leave it at False"):
    monitor.Monitor(unlabelled)


class _WithoutLabels:
  """A data set whose labels are unknown."""

  num_classes = 0

  def __init__(self, source):
    self._source = source

  def __getattr__(self, name):
    return getattr(self._source, name)


def test_the_best_is_the_latest_of_the_best():
  best = saver._Best()
  values = {2: 0.5, 4: 0.7, 6: 0.6, 8: 0.7, 10: 0.1}
  assert [s for s, value in values.items() if best.offer(s, value)] == [2, 4, 8]
  assert best.step == 8
