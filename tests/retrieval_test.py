"""Retrieval: neighbours of images, with labels and without."""

import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from matplotlib import image

from byol_jax import config, errors
from byol_jax.config import convert
from byol_jax.data import eval_input
from byol_jax.data import source as source_lib
from byol_jax.evaluation import neighbours, protocols, retrieval, runner
from byol_jax.evaluation import results as results_lib
from byol_jax.evaluation.features import Features
from byol_jax.reporting import neighbours as pictures
from byol_jax.reporting import report
from byol_jax.training import runs
from tests.eval_cases import brute_force, noise, settled_state


def measured(bank, queries, **changes):
  options = dict(k=2, exclude_self=queries is bank, seed=0)
  return dict(retrieval.measure(bank, queries, **(options | changes)))


# Two of one class and one of another that points the same way, two opposite.
HAND_MADE = Features(
  np.array([[1, 0], [2, 0.1], [1, 0.3], [-1, 0], [-1, 0.1]], np.float32),
  np.array([0, 0, 1, 1, 1], np.int32),
)


def test_precision_is_the_fraction_of_neighbours_of_the_same_class():
  result = measured(HAND_MADE, HAND_MADE)["precision_at_2"]
  # Of the fourth and fifth, the second neighbour is the third.
  assert result == {"value": pytest.approx((1 + 1 + 0 + 2 + 2) / 10), "k": 2}
  queries = Features(np.array([[1, 0.0]], np.float32), np.array([0], np.int32))
  assert measured(HAND_MADE, queries, k=3)["precision_at_3"]["value"] == (
    pytest.approx(2 / 3)
  )


def test_without_labels_there_are_only_cosines():
  unlabelled = HAND_MADE._replace(labels=np.full(5, -1, np.int32))
  results = measured(unlabelled, unlabelled)
  assert set(results) == {"nearest_cosine", "random_cosine"}
  expected = brute_force(unlabelled.vectors, unlabelled.vectors, 2)[1][:, 1]
  assert results["nearest_cosine"]["value"] == pytest.approx(expected.mean())


def test_random_pairs_are_of_different_examples():
  """Two opposite examples have one pair only."""
  opposite = Features(np.array([[2.0, 0], [-1, 0]]), np.array([-1, -1]))
  for seed in range(5):
    results = measured(opposite, opposite, k=1, seed=seed)
    assert results["random_cosine"]["value"] == pytest.approx(-1)


def test_random_cosine_estimates_that_of_all_pairs_and_depends_on_the_seed():
  bank = Features(1 + noise(900, seed=0), np.full(900, -1))
  queries = Features(1 + noise(700, seed=1), np.full(700, -1))
  pairs = (
    neighbours.l2_normalize(queries.vectors)
    @ neighbours.l2_normalize(bank.vectors).T
  )
  values = [
    measured(bank, queries, seed=seed)["random_cosine"]["value"]
    for seed in (0, 0, 1)
  ]
  # Five standard errors.
  np.testing.assert_allclose(values, pairs.mean(), atol=5 * pairs.std() / 26)
  assert values[0] == values[1] != values[2]


def test_collapse_shows_as_two_cosines_of_one():
  collapsed = Features(1 + 1e-3 * noise(50, seed=0), np.full(50, -1))
  results = measured(collapsed, collapsed)
  for name in ("nearest_cosine", "random_cosine"):
    assert results[name]["value"] == pytest.approx(1, abs=1e-4)


def test_neighbours_of_a_few_evenly_spaced_queries_are_returned():
  bank = Features(noise(30, seed=0), np.full(30, -1))
  shown = retrieval.examples(bank, bank, k=4, exclude_self=True)
  np.testing.assert_array_equal(shown["queries"], [0, 4, 8, 12, 16, 20, 24, 29])
  indices, cosines = brute_force(bank.vectors, bank.vectors, 5)
  np.testing.assert_array_equal(
    shown["neighbours"], indices[shown["queries"], 1:]
  )
  np.testing.assert_allclose(
    shown["cosines"], cosines[shown["queries"], 1:], atol=1e-6
  )


def prepared(tmp_path, labelled, **splits) -> runs.Run:
  """An untrained run on small noisy squares of the given splits."""
  features_dict = {"image": tfds.features.Image(shape=(9, 9, 3))}
  if labelled:
    features_dict["label"] = tfds.features.ClassLabel(num_classes=2)

  def example(i, rng):
    bright = rng.randint(100, 256, (9, 9, 3)) // (1 + i % 2)
    image = {"image": bright.astype(np.uint8)}
    return i, image | ({"label": i % 2} if labelled else {})

  rng = np.random.RandomState(0)
  tfds.dataset_builders.store_as_tfds_dataset(
    name="cifar10",
    version="3.0.2",
    data_dir=tmp_path,
    features=tfds.features.FeaturesDict(features_dict),
    split_datasets={
      name: [example(i, rng) for i in range(count)]
      for name, count in splits.items()
    },
  )
  cfg = config.small_grey_config()
  cfg.data.dataset = "cifar10"
  cfg.data.data_dir = str(tmp_path)
  cfg.data.image_size = 8
  cfg.model.encoder.name = "TinyResNet"
  cfg.train.batch_size = 8
  cfg.evaluation.protocols = ("knn", "retrieval")
  cfg.evaluation.batch_size = 8
  cfg.evaluation.knn.k = 5
  cfg.evaluation.retrieval.k = 3
  workdir = tmp_path / "run"
  workdir.mkdir()
  return runs.prepare(cfg, workdir)


def evaluated(run):
  """The results, and the neighbours that were written for the report."""
  results = runner.evaluate(run, settled_state(run))
  assert results == results_lib.read(run.workdir)
  assert results_lib.is_complete(run, protocols.selected(run).names)
  return results, np.load(run.workdir / "neighbours.npz")


def test_another_metric_leaves_the_neighbours_of_the_own_data_set(tmp_path):
  run = prepared(tmp_path, labelled=True, train=16, test=8)
  run.config.evaluation.protocols = ("retrieval",)
  run.config.evaluation.metric = "mean_per_class"
  run.config.evaluation.baselines = False
  _, found = evaluated(run)
  assert found["neighbours"].shape == (8, 3)


def drawn(run):
  """The figure of neighbours in the report of a run."""
  (run.workdir / "metrics.jsonl").write_text('{"step": 1}\n')
  report.write(run)
  return run.workdir / "figures" / "neighbours.png"


def stored(run, split):
  """The images and labels of a split in the order of its files."""
  (batch,) = eval_input.eval_batches(
    run.source, split, source_lib.CentreCrop((8, 8), 1.0), batch_size=99
  )
  return batch["image"], batch["label"]


@pytest.mark.slow
def test_an_unlabelled_data_set_is_evaluated_and_drawn(tmp_path, caplog):
  run = prepared(tmp_path, labelled=False, train=8)
  with caplog.at_level(logging.WARNING):
    results, found = evaluated(run)
  assert "cifar10 has no labels or no test split; not run: knn." in caplog.text
  prefixes = (
    "retrieval/",
    "baseline/pixels_retrieval_",
    "baseline/random_retrieval_",
  )
  assert set(results) == {
    prefix + name
    for prefix in prefixes
    for name in ("nearest_cosine", "random_cosine")
  }
  online = results["retrieval/nearest_cosine"]["value"]
  for name, result in results.items():
    assert -1 <= result.pop("value") <= 1 + 1e-6
    network = result.pop("network")
    assert (network == "online") == name.startswith("retrieval/")
    assert result == {
      "protocol": "retrieval",
      "metric": name.split("retrieval")[1][1:],
      "dataset": "cifar10",
      "train_split": "train",
      "split": "train",
      "examples": 8,
      "step": run.plan.total_steps if network == "online" else 0,
    }
  assert found["query_split"] == found["bank_split"] == "train"
  assert found["neighbours"].shape == found["cosines"].shape == (8, 3)
  assert not np.any(found["neighbours"] == found["queries"][:, None])
  assert np.mean(found["cosines"][:, 0]) == pytest.approx(online)

  assert image.imread(drawn(run)).std() > 0.1
  page = (run.workdir / "report.html").read_text()
  assert "The images have no labels." in page
  assert "8 images of train on the first two principal components" in page


@pytest.mark.slow
def test_a_labelled_data_set_searches_train_for_the_test_split(
  tmp_path, monkeypatch
):
  run = prepared(tmp_path, labelled=True, train=16, test=8)
  run.config.evaluation.baselines = False
  results, found = evaluated(run)
  assert "knn/top1" in results
  precision = results["retrieval/precision_at_3"]
  assert (precision["split"], precision["examples"]) == ("test", 8)
  assert precision["k"] == 3
  assert (found["query_split"], found["bank_split"]) == ("test", "train")

  images, labels = stored(run, "train")
  queries, query_labels = stored(run, "test")
  indices = found["neighbours"]
  shown = {}
  monkeypatch.setattr(
    pictures,
    "draw",
    lambda queries, neighbours, cosines, path, agree, names: shown.update(
      locals()
    ),
  )
  drawn(run)
  np.testing.assert_array_equal(shown["queries"], queries)
  np.testing.assert_array_equal(shown["neighbours"], images[indices])
  np.testing.assert_array_equal(shown["cosines"], found["cosines"])
  np.testing.assert_array_equal(
    shown["agree"], labels[indices] == query_labels[:, None]
  )
  rows = np.concatenate([query_labels[:, None], labels[indices]], axis=1)
  assert shown["names"] == rows.astype(str).tolist()
  assert np.mean(shown["agree"]) == pytest.approx(precision["value"])


@pytest.mark.slow
def test_without_a_test_split_train_is_searched_for_itself(tmp_path):
  run = prepared(tmp_path, labelled=True, train=16)
  run.config.evaluation.baselines = False
  untested = run.source.dataset._replace(test="")
  run = run._replace(source=run.source._replace(dataset=untested))
  results, _ = evaluated(run)
  assert "knn/top1" not in results
  precision = results["retrieval/precision_at_3"]
  assert (precision["split"], precision["examples"]) == ("train", 16)


@pytest.mark.parametrize(
  ("changes", "parts"),
  [
    (
      {"evaluation.protocols": ("knn",)},
      ("no labels", "knn", "protocols=retrieval"),
    ),
    (
      {"evaluation.retrieval.k": 5},
      ("retrieval.k=5", "4 neighbours", "4 or less"),
    ),
  ],
)
def test_a_protocol_that_cannot_be_run_is_one_line(tmp_path, changes, parts):
  run = prepared(tmp_path, labelled=False, train=8)
  run = run._replace(
    config=convert.updated(run.config, changes),
    source=run.source._replace(
      dataset=run.source.dataset._replace(train="train[:5]")
    ),
  )
  with pytest.raises(errors.UserError) as info:
    protocols.selected(run)
  assert "\n" not in str(info.value)
  for part in parts:
    assert part in str(info.value)
