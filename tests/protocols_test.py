"""Protocols on a small data set, and on which examples they choose."""

import itertools
import json
import re
import shutil

import haiku as hk
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import config, errors
from byol_jax.data import registry
from byol_jax.evaluation import embed, features, runner, scores
from byol_jax.evaluation import subject as subjects
from byol_jax.evaluation.protocols import PROTOCOLS
from byol_jax.training import runs

CLASSES = 3


def store(folder, name="cifar10", **splits):
  """Squares whose colour says their class, more or less."""
  random = np.random.RandomState(0)

  def example(i):
    image = random.randint(0, 150, (9, 9, 3))
    image[..., i % CLASSES] += 100
    return i, {"image": image.astype(np.uint8), "label": i % CLASSES}

  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version="3.0.2",
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(9, 9, 3)),
        "label": tfds.features.ClassLabel(num_classes=CLASSES),
      }
    ),
    split_datasets={
      split: [example(i) for i in range(count)]
      for split, count in splits.items()
    },
  )


def store_several(folder):
  """Squares, as VOC2007, in which any of three colours may be strong."""
  random = np.random.RandomState(0)

  def example(i):
    there = [c for c in range(CLASSES) if random.rand() < 0.5]  # Or none.
    image = random.randint(0, 120, (9, 9, 3))
    image[..., there] += 120
    return i, {"image": image.astype(np.uint8), "labels_no_difficult": there}

  label = tfds.features.ClassLabel(num_classes=CLASSES)
  tfds.dataset_builders.store_as_tfds_dataset(
    name="voc",
    config="2007",
    version="5.0.0",
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(9, 9, 3)),
        "labels_no_difficult": tfds.features.Sequence(label),
      }
    ),
    split_datasets={
      name: [example(i) for i in range(count)]
      for name, count in (("train", 40), ("validation", 15), ("test", 23))
    },
  )


def settings(folder):
  cfg = config.small_grey_config()
  cfg.data.dataset = "cifar10"
  cfg.data.data_dir = str(folder)
  cfg.data.image_size = 8
  cfg.model.encoder.name = "TinyResNet"
  cfg.model.encoder.width = 0.25
  cfg.train.batch_size = 8
  cfg.evaluation.batch_size = 16
  cfg.evaluation.knn.k = 5
  cfg.evaluation.retrieval.k = 3
  cfg.evaluation.linear.epochs = 3.0
  cfg.evaluation.semi_supervised.labels = (0.5, 12)
  cfg.evaluation.semi_supervised.epochs = (2.0,)
  cfg.evaluation.finetune.steps = 3
  return cfg


def prepare(folder, cfg, **splits):
  store(folder, **(splits or {"train": 53, "test": 31}))
  workdir = folder / "run"
  workdir.mkdir()
  return runs.prepare(cfg, workdir)


@pytest.fixture
def run(tmp_path):
  return prepare(tmp_path, settings(tmp_path))


def judged(run, protocol, subject=subjects.pixels):
  source = subjects.open_source(run)
  splits = subjects.make_splits(run, source)
  return dict(PROTOCOLS[protocol](subject(run, source), splits))


def test_the_end_of_train_is_held_out(run):
  splits = subjects.make_splits(run, run.source)
  assert splits == subjects.Splits("train", range(42), range(42, 53), "test")
  run.config.evaluation.train_split = "train[:20]"
  run.config.evaluation.test_split = "train[20:]"
  splits = subjects.make_splits(run, run.source)
  assert splits.train == "train[:20]"
  assert (splits.fit, splits.validation) == (range(16), range(16, 20))


def test_an_official_validation_split_is_chosen_on(tmp_path):
  run = prepare(tmp_path, settings(tmp_path), train=9, validation=6, test=5)
  described = run.source.dataset._replace(validation="validation")
  source = run.source._replace(dataset=described)
  splits = subjects.make_splits(run, source)
  assert splits.train == "train+validation"
  assert (splits.fit, splits.validation) == (range(9), range(9, 15))
  both = subjects.features_of(subjects.pixels(run, source), splits.train)
  alone = subjects.features_of(subjects.pixels(run, source), "validation")
  np.testing.assert_array_equal(both.vectors[9:], alone.vectors)


def test_the_test_split_must_not_be_learnt_from(run):
  run.config.evaluation.train_split = "train+test[:4]"
  with pytest.raises(errors.UserError, match="4 examples of the test split"):
    runner.protocol_names(run)


@pytest.mark.parametrize("protocol", ["knn", "linear", "logistic"])
def test_protocols_tell_colours_apart(run, protocol):
  ((name, result),) = judged(run, protocol).items()
  assert name == "top1"
  assert result["value"] > 0.8
  low, high = result["interval"]
  assert low <= result["value"] <= high
  if protocol != "knn":
    assert result["validation_examples"] == 11
    assert result["tried"] > 1


@pytest.mark.parametrize("protocol", ["linear", "logistic"])
def test_no_choice_depends_on_the_test_labels(run, protocol, monkeypatch):
  ((_, right),) = judged(run, protocol).items()
  features_of = subjects.features_of

  def mislabelled(subject, split):
    found = features_of(subject, split)
    if split != "test":
      return found
    return found._replace(labels=(found.labels + 1) % CLASSES)

  monkeypatch.setattr("byol_jax.evaluation.protocols.features_of", mislabelled)
  ((_, wrong),) = judged(run, protocol).items()
  for result in (right, wrong):
    for name in ("interval", "worst_class"):
      del result[name]
  assert right.pop("value") > wrong.pop("value")
  assert right == wrong


def test_a_protocol_is_not_told_the_test_split_while_it_chooses(
  run, monkeypatch
):
  seen = []
  features_of = subjects.features_of

  def watched(subject, split):
    seen.append(split)
    return features_of(subject, split)

  monkeypatch.setattr("byol_jax.evaluation.protocols.features_of", watched)
  judged(run, "linear")
  first = seen.index("test")
  assert set(seen[:first]) == {"train"}
  assert set(seen[first:]) == {"test"}


def settled_state(run):
  """Before training, with running statistics that leave activations alone."""
  state = run.initial_state()
  return state._replace(
    online_state=hk.data_structures.map(
      lambda module, _, value: np.full_like(value, "var_ema" in module),
      state.online_state,
    ),
    step=np.int32(run.plan.total_steps),
  )


def untrained(run, source):
  return subjects.untrained(run, source, "train")


@pytest.mark.slow
def test_few_labels_and_all_of_them_train_the_encoder(run):
  few = judged(run, "semi_supervised", untrained)
  assert set(few) == {"50%_top1", "12_top1"}
  assert few["50%_top1"]["labels"] == 27  # Half of 53, of 42 to fit.
  assert few["12_top1"]["labels"] == 12
  assert few["12_top1"]["batch_size"] == 12
  for result in few.values():
    assert {"learning_rate", "epochs", "validation"} <= result.keys()
  run.config.evaluation.finetune.steps = 60
  ((_, result),) = judged(run, "finetune", untrained).items()
  assert result["value"] > 0.5  # Three classes: chance is a third.
  assert result["tried"] == 2
  assert result["weight_decay"] == 0


@pytest.mark.slow
def test_random_crops_go_through_the_frozen_encoder(run):
  run.config.evaluation.linear.crops = "random"
  ((_, result),) = judged(run, "linear", untrained).items()
  assert result["crops"] == "random"
  assert result["value"] > 0.4


@pytest.mark.slow
def test_figures_are_the_same_for_any_batch_size_and_number_of_devices(
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


def test_halves_of_a_split_are_kept_apart(run):
  subject = subjects.pixels(run, run.source)
  for _ in range(2):
    first, second = (
      subjects.features_of(subject, split)
      for split in ("train[:50%]", "train[50%:]")
    )
    assert len(first.labels) + len(second.labels) == 53
  assert len([*(run.workdir / "features").iterdir()]) == 2


def test_data_that_changed_in_place_are_read_again(run, tmp_path):
  before = subjects.features_of(subjects.pixels(run, run.source), "test")
  shutil.rmtree(tmp_path / "cifar10")
  store(tmp_path, train=53, test=17)
  source = subjects.open_source(runs.prepare(run.config, run.workdir))
  after = subjects.features_of(subjects.pixels(run, source), "test")
  assert (len(before.labels), len(after.labels)) == (31, 17)


def test_examples_without_labels_are_told_before_anything_is_learnt(run):
  features_of = subjects.features_of

  def unlabelled(subject, split):
    found = features_of(subject, split)
    return found._replace(labels=np.where(found.labels == 1, -1, found.labels))

  subject = subjects.pixels(run, run.source)
  splits = subjects.make_splits(run, run.source)
  subjects.check_labels(subject, splits)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(subjects, "features_of", unlabelled)
    with pytest.raises(errors.UserError, match="'train' of cifar10 have no"):
      subjects.check_labels(subject, splits)


@pytest.mark.parametrize(
  ("key", "split"), [("train_split", "train[:1]"), ("test_split", "test[:0]")]
)
def test_splits_that_are_too_small_are_one_line(run, key, split):
  run.config.evaluation[key] = split
  with pytest.raises(errors.UserError, match=re.escape(split)):
    runner.protocol_names(run)


def test_what_diverged_is_never_chosen():
  from byol_jax.evaluation import protocols

  finite = features.Features(np.eye(2, dtype=np.float32), np.array([1, 0]))
  diverged = finite._replace(vectors=finite.vectors * np.nan)
  subject = subjects.Subject(None, None, "", None, {}, {})
  subject = subject._replace(
    source=type("Source", (), {"dataset": registry.Dataset("x")})
  )
  assert protocols._value(subject, finite) == 0
  assert protocols._value(subject, diverged) < 0


@pytest.mark.slow
def test_another_data_set_is_judged_under_its_name(run, tmp_path):
  store(tmp_path, name="cifar100", train=20, test=11)
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
  assert runner.is_complete(run)
  run.config.evaluation.dataset = ""
  assert not runner.is_complete(run)
  run.config.evaluation.dataset = "cifar100"
  longer = run.plan._replace(total_steps=run.plan.total_steps + 1)
  assert not runner.is_complete(run._replace(plan=longer))


@pytest.mark.slow
def test_embeddings_stand_beside_ids_and_labels(run):
  state = run.initial_state()
  found = np.load(embed.write(run, state, "test[:5]"))
  whole = np.load(embed.write(run, state, "test"))
  assert whole["embeddings"].shape[0] == 31
  for name in ("ids", "embeddings", "labels"):
    assert len(found[name]) == 5
  np.testing.assert_array_equal(found["ids"], whole["ids"][:5])
  np.testing.assert_array_equal(found["labels"], whole["labels"][:5])
  np.testing.assert_allclose(
    found["embeddings"], whole["embeddings"][:5], rtol=1e-4, atol=1e-5
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

  monkeypatch.setattr(runs.time, "sleep", sleep)
  assert [int(found.step) for found in runs.watch(run)] == [4, 9]
  assert len(waited) == 2


@pytest.mark.slow
def test_the_figures_of_every_evaluation_are_kept(run):
  run.config.evaluation.protocols = ("knn",)
  run.config.evaluation.baselines = False
  found = []
  for step in (3, 9):
    state = settled_state(run)._replace(step=np.int32(step))
    results = runner.evaluate(run, state)
    found.append({"step": step, "knn/top1": results["knn/top1"]["value"]})
  lines = (run.workdir / "evaluations.jsonl").read_text().splitlines()
  assert [json.loads(line) for line in lines] == found


def test_features_of_other_parameters_are_made_anew(run):
  source = run.source
  state = run.initial_state()
  one = subjects.online(run, source, state)
  moved = jax.tree.map(lambda x: x + 1, state.online_params)
  other = subjects.online(run, source, state._replace(online_params=moved))
  assert one.about != other.about
  (folder,) = {subjects.features_of(s, "test") and s.name for s in (one, other)}
  assert folder == "online"
  assert len([*(run.workdir / "features").iterdir()]) == 1


@pytest.mark.parametrize("metric", scores.METRICS)
def test_perfect_scores_are_worth_1(metric):
  labels = np.array([0, 1, 1, 2, 2, 2])
  perfect = np.eye(3)[labels]
  given = perfect.astype(np.int32) if metric == "map11" else labels
  result = scores.judge(metric, given, perfect, seed=0)
  assert result["value"] == 1
  assert result["interval"] == [1, 1]
  assert result["worst_class"][1] == 1


def test_metrics_are_those_of_their_names():
  labels = np.array([0, 0, 0, 1])
  always = np.array([[1.0, 0.0]] * 4)
  assert scores.value("top1", labels, always) == 0.75
  assert scores.value("mean_per_class", labels, always) == 0.5
  # Found first, third: precisions 1 up to recall 1/2, then 2/3.
  there = np.array([[1], [0], [1], [0]])
  falling = np.array([[4.0], [3.0], [2.0], [1.0]])
  expected = (6 * 1 + 5 * 2 / 3) / 11
  assert scores.value("map11", there, falling) == pytest.approx(expected)
  with pytest.raises(errors.UserError, match="top1, mean_per_class, map11"):
    scores.value("top5", labels, always)


def test_an_interval_holds_the_figure_as_often_as_it_says():
  """Of test sets of 200 from a classifier that is right in 80 of 100."""
  random = np.random.RandomState(0)
  inside = 0
  for seed in range(100):
    right = random.rand(200) < 0.8
    found = np.eye(2)[right.astype(int)]
    low, high = scores.judge("top1", np.ones(200, int), found, seed)["interval"]
    inside += low <= 0.8 <= high
  assert 88 <= inside <= 100


def test_geometry_of_clouds_that_are_known():
  from byol_jax.evaluation import geometry

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
  names = dict(geometry.run(features.Features(round_, np.zeros(500)), seed=0))
  assert set(names) == {"rank_me", "uniformity", "class_alignment"}


@pytest.mark.slow
def test_images_of_several_classes_are_judged_by_average_precision(
  run, tmp_path
):
  store_several(tmp_path)
  run.config.evaluation.dataset = "voc2007"
  for protocol in ("knn", "linear", "logistic"):
    ((name, result),) = judged(run, protocol).items()
    assert name == "map11"
    assert result["value"] > 0.8, protocol
  run.config.evaluation.finetune.steps = 40
  ((_, result),) = judged(run, "finetune", untrained).items()
  assert result["value"] > 0.6
  assert result["validation_examples"] == 15
  assert "class_alignment" in judged(run, "geometry")
  precision = judged(run, "retrieval")["precision_at_3"]["value"]
  assert 0.3 < precision < 1


def test_a_data_set_of_several_classes_can_be_pretrained_on(tmp_path):
  store_several(tmp_path)
  cfg = settings(tmp_path)
  cfg.data.dataset = "voc2007"
  run = runs.prepare(cfg, tmp_path)
  (batch,) = itertools.islice(runs._batches(run, 0), 1)
  np.testing.assert_array_equal(batch["label"], -1)
