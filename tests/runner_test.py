"""Evaluations as a whole: their results and what they write."""

import collections
import json

import jax
import numpy as np
import pytest
from pyarrow import parquet

from byol_jax.data import split_contents
from byol_jax.evaluation import embed, runner
from byol_jax.evaluation.results import is_complete
from byol_jax.runtime import checkpoints
from byol_jax.training import restore
from tests.eval_cases import (
  prepare,
  settled_state,
  small_config,
  store_colours,
)


@pytest.fixture
def run(tmp_path):
  return prepare(tmp_path, small_config(tmp_path))


@pytest.mark.slow
def test_results_are_the_same_for_any_batch_size_and_number_of_devices(
  run, monkeypatch
):
  """31 test examples: a prime number."""
  run.config.evaluation.protocols = ("knn", "linear", "geometry")
  run.config.evaluation.baselines = False
  found = []
  for batch_size, devices in ((16, 2), (7, 2), (100, 1)):
    run.config.evaluation.batch_size = batch_size
    with monkeypatch.context() as patch:
      if devices == 1:
        patch.setattr(jax, "local_device_count", lambda: 1)
      workdir = run.workdir / f"{batch_size}_{devices}"
      workdir.mkdir()
      results = runner.evaluate(
        run._replace(workdir=workdir), settled_state(run)
      )
    assert all(result["examples"] == 31 for result in results.values())
    found.append({name: result["value"] for name, result in results.items()})
  for other in found[1:]:
    assert other.keys() == found[0].keys()
    for name, value in other.items():
      np.testing.assert_allclose(value, found[0][name], rtol=1e-3, err_msg=name)


@pytest.mark.slow
def test_results_on_another_data_set_have_its_name(run, tmp_path):
  store_colours(tmp_path, name="cifar100", train=20, test=11)
  run.config.evaluation.dataset = "cifar100"
  run.config.evaluation.protocols = ("logistic", "semi_supervised")
  run.config.evaluation.semi_supervised.labels = (0.5,)
  results = runner.evaluate(run, settled_state(run))
  assert set(results) == {
    "cifar100/logistic/top1",
    "cifar100/semi_supervised/50%_top1",
    "cifar100/baseline/pixels_logistic_top1",
    "cifar100/baseline/random_logistic_top1",
    "cifar100/baseline/random_semi_supervised_50%_top1",
  }
  ours = results["cifar100/logistic/top1"]
  assert (ours["dataset"], ours["examples"]) == ("cifar100", 11)
  assert "paper" not in ours  # That is of a ResNet-50 from ImageNet.
  assert is_complete(run, run.config.evaluation.protocols)
  run.config.evaluation.dataset = ""
  assert not is_complete(run, run.config.evaluation.protocols)
  run.config.evaluation.dataset = "cifar100"
  longer = run.plan._replace(total_steps=run.plan.total_steps + 1)
  assert not is_complete(
    run._replace(plan=longer), run.config.evaluation.protocols
  )


@pytest.mark.slow
def test_the_values_of_every_evaluation_are_kept(run):
  run.config.evaluation.protocols = ("knn",)
  run.config.evaluation.baselines = False
  found = []
  for step in (3, 9):
    state = settled_state(run)._replace(step=np.int32(step))
    results = runner.evaluate(run, state)
    found.append({"step": step, "knn/top1": results["knn/top1"]["value"]})
  lines = (run.workdir / "evaluations.jsonl").read_text().splitlines()
  assert [json.loads(line) for line in lines] == found


@pytest.mark.slow
def test_embeddings_stand_beside_ids_and_labels(run):
  state = run.initial_state()
  found = np.load(embed.write(run, state, "test[:5]").path)
  whole = np.load(embed.write(run, state, "test").path)
  assert whole["embeddings"].shape[0] == 31
  for name in ("ids", "embeddings", "labels"):
    assert len(found[name]) == 5
  np.testing.assert_array_equal(found["ids"], whole["ids"][:5])
  np.testing.assert_array_equal(found["labels"], whole["labels"][:5])
  np.testing.assert_allclose(
    found["embeddings"], whole["embeddings"][:5], rtol=1e-4, atol=1e-5
  )
  assert set(whole["split"]) == {"test"}


@pytest.mark.slow
def test_all_images_are_embedded_with_their_splits_and_class_names(run):
  written = embed.write(run, run.initial_state(), "")
  found = np.load(written.path)
  assert written.num_images == 53 + 31
  assert collections.Counter(found["split"]) == {"train": 53, "test": 31}
  ids = found["ids"][found["split"] == "test"].tolist()
  assert ids == split_contents.example_ids(run.source, "test")
  assert len(found["embeddings"]) == len(found["labels"]) == 53 + 31
  assert found["class_names"].tolist() == ["0", "1", "2"]
  classes = json.loads((run.workdir / "classes.json").read_text())
  assert classes == {"cifar10": ["0", "1", "2"]}
  table = embed.write(run, run.initial_state(), "", "parquet").path
  rows = parquet.read_table(table)
  assert rows["id"].to_pylist() == found["ids"].tolist()
  assert rows["split"].to_pylist() == found["split"].tolist()
  assert rows["label"].to_pylist() == found["labels"].tolist()
  np.testing.assert_allclose(
    rows["embedding"].to_pylist(), found["embeddings"], rtol=1e-6
  )


def test_new_checkpoints_are_watched_for_until_the_last(run, monkeypatch):
  run = run._replace(plan=run.plan._replace(total_steps=9))
  state = run.initial_state()

  def save(step):
    with run.open_checkpoints() as saved:
      saved.save(step, state._replace(step=np.int32(step)))

  waited = []

  def sleep(seconds):
    waited.append(seconds)
    save({1: 4, 2: 9}[len(waited)])

  monkeypatch.setattr(restore.time, "sleep", sleep)
  assert [int(found.step) for found in restore.watch(run)] == [4, 9]
  assert len(waited) == 2


def test_a_damaged_checkpoint_is_not_waited_for_again(run, monkeypatch):
  """The one before it was seen, or is seen once; then a later one is due."""
  run = run._replace(plan=run.plan._replace(total_steps=9))
  latest = iter([4, 6, 8, 9])
  readable = iter([4, 4, 6, 9])
  monkeypatch.setattr(restore, "_latest_step", lambda _: next(latest))
  monkeypatch.setattr(
    restore,
    "_read",
    lambda _: run.initial_state()._replace(step=np.int32(next(readable))),
  )
  assert [int(found.step) for found in restore.watch(run)] == [4, 6, 9]


def test_a_lone_damaged_checkpoint_does_not_end_the_watch(run, monkeypatch):
  run = run._replace(plan=run.plan._replace(total_steps=9))
  latest = iter([4, 4, 9])
  waited = []

  def read(_):
    if not waited:
      raise checkpoints.DamagedError("No checkpoint can be read.")
    return run.initial_state()._replace(step=np.int32(9))

  monkeypatch.setattr(restore, "_latest_step", lambda _: next(latest))
  monkeypatch.setattr(restore, "_read", read)
  monkeypatch.setattr(restore.time, "sleep", waited.append)
  assert [int(found.step) for found in restore.watch(run)] == [9]
  assert len(waited) == 1
