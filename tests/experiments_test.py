"""The experiments on data in the form that tfds gives them."""

import gzip
import importlib
import json
import pathlib
import re
import subprocess
import types

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn import datasets as sklearn_datasets

from byol_jax import config, errors
from byol_jax.config import convert
from byol_jax.data import registry
from byol_jax.models import encoders
from byol_jax.training import build, plan, resolve
from tests import command_line, image_folders, network_cases
from tests.experiment_configs import experiment_config

EXPERIMENTS = sorted(
  path.stem for path in (command_line.ROOT / "experiments").glob("*.py")
)
# Those of small data sets, which docs/recipes.md lists.
SMALL = [
  *("quickstart", "mnist", "fashion_mnist", "cifar10", "cifar100", "stl10"),
  *("tiny_imagenet", "imagenette"),
]
# Debian's package dataset-fashion-mnist.
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_valid_configuration(name):
  config.validate(experiment_config(name))


def source_of(settings):
  """What decides open values: the data set's statistics, without its images."""
  known = registry.DATASETS.get(settings.data.dataset)
  folder = registry.Statistics((0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 64)
  dataset = known or registry.Dataset("folder", folder)
  return types.SimpleNamespace(dataset=dataset)


@pytest.mark.parametrize(
  "name", [name for name in EXPERIMENTS if name != "continue_training"]
)
def test_every_experiment_makes_the_network_of_its_data_set(name):
  """Views and state have shapes, without any image. `auto` needs an encoder."""
  settings = experiment_config(name)
  resolved = resolve.resolved(settings, source_of(settings), None)
  data = resolved.data
  assert len(data.mean) == len(data.std) == data.channels
  side = data.image_size
  views = jax.ShapeDtypeStruct((2, side, side, data.channels), np.float32)
  batch = {"view1": views, "view2": views, "label": np.zeros(2, int)}
  built = build.build_learner(resolved, plan.make_plan(resolved, 50_000), 10)
  state = jax.eval_shape(built.init, jax.random.key(0), batch)
  heads = {name.split("/")[0] for name in state.online_params}
  assert {"projector", "predictor", "classifier"} <= heads


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_recipes_for_cifar_differ_as_their_sources_do(name):
  lars, sgd = (
    convert.typed(experiment_config(name, *given)) for given in ((), ("sgd",))
  )
  for settings in (lars, sgd):
    config.validate(settings)
    assert settings.data.dataset == name
    assert settings.model.encoder.name == "ResNet18"
    assert settings.augment == lars.augment
  assert (lars.optimizer.name, sgd.optimizer.name) == ("lars", "sgd")
  assert (lars.train.batch_size, lars.train.epochs) == (256, 1000)
  assert (sgd.train.batch_size, sgd.train.epochs) == (128, 200)
  assert (lars.ema.schedule, sgd.ema.schedule) == ("cosine", "constant")
  assert lars.model.predictor.hidden_size == 4096
  assert sgd.model.predictor.hidden_size == 1024
  # lightly's gradient is a quarter of ours, see `presets.cifar_config`.
  rate = plan.make_plan(sgd, 50_000).peak_learning_rate
  np.testing.assert_allclose(4 * rate, 0.06)
  np.testing.assert_allclose(rate * sgd.optimizer.weight_decay, 0.06 * 5e-4)
  assert plan.make_plan(lars, 50_000).peak_learning_rate == 1.0
  with pytest.raises(errors.UserError, match="lars, sgd"):
    experiment_config(name, "adam")


@pytest.mark.parametrize(
  ("name", "preset", "expected", "quoted"),
  [
    ("quickstart", (), "linear/top1=0.975", "0.975 on average"),
    ("fashion_mnist", ("short",), "linear/top1=0.867", "0.867"),
    ("fashion_mnist", ("compared",), "linear/top1=0.877", "0.877"),
    ("cifar10", ("sgd",), "knn/top1=0.869", "86.9%"),
    ("imagenet", ("300",), "linear/top1=0.725", "72.5"),
  ],
)
def test_an_expected_number_is_quoted_with_its_source(
  name, preset, expected, quoted
):
  assert expected in experiment_config(name, *preset).evaluation.expected
  assert quoted in importlib.import_module(f"experiments.{name}").__doc__


@pytest.mark.parametrize("name", SMALL)
def test_a_recipe_says_whose_numbers_it_quotes(name):
  opening = importlib.import_module(f"experiments.{name}").__doc__
  said = ("Ours", "Theirs", "no published number")
  assert any(words in " ".join(opening.split()) for words in said)
  page = (command_line.ROOT / "docs" / "recipes.md").read_text()
  assert f"`{name}" in page


def tiny_imagenet(root):
  """The published layout in miniature; returns its root."""
  classes = ("n01", "n02", "n03")
  names = [f"train/{c}/images/{c}_{i}.png" for c in classes for i in range(4)]
  names += [f"val/images/val_{i}.png" for i in range(3)]
  names += [f"test/images/test_{i}.png" for i in range(2)]
  files = image_folders.tree(*names)
  boxes = "".join(
    f"val_{i}.png\t{c}\t0\t0\t8\t8\n" for i, c in enumerate(classes)
  )
  files |= {"val/val_annotations.txt": boxes.encode(), "wnids.txt": b"n01\n"}
  files |= {f"train/{c}/{c}_boxes.txt": b"0\n" for c in classes}
  return image_folders.fill(root, files)


def test_the_command_of_tiny_imagenet_sorts_its_images(tmp_path):
  root = tiny_imagenet(tmp_path / "tiny-imagenet-200")
  published = image_folders.load(root, max_broken=0.5)
  # Nobody is to evaluate on it by accident.
  for split in ("validation", "test"):
    assert any(f"{split}, such as images:" in x for x in published.notes)
  module = importlib.import_module("experiments.tiny_imagenet")
  _, command = module.__doc__.split("\n    cd DIR && ")
  command = re.sub(r"\\\n +", "", command.split("\n\n")[0])
  assert command in (command_line.ROOT / "docs" / "recipes.md").read_text()
  subprocess.run(command, shell=True, cwd=root, check=True)
  sorted_in = image_folders.load(root, max_broken=0.5)
  assert image_folders.labels_of(sorted_in, "validation") == {
    f"val/n0{i + 1}/val_{i}.png": f"n0{i + 1}" for i in range(3)
  }
  assert len(image_folders.stored(sorted_in, "train")) == 12
  assert len(image_folders.stored(sorted_in, "test_unlabelled")) == 2
  assert (
    "Splits: train/ trains the network, val/ tests, test/ has no labels."
    in sorted_in.notes
  )
  assert not any("such as" in note for note in sorted_in.notes[1:])


def test_the_options_of_a_small_pytorch_implementation():
  """The names and values of its constructor."""
  defaults = experiment_config("small_pytorch")
  model, ema = defaults.model, defaults.ema
  assert (model.encoder.name, model.encoder.init_from) == ("ResNet50", "")
  for head in (model.projector, model.predictor):
    assert (head.hidden_size, head.layers) == (4096, 2)
  assert model.projector.output_size == 256
  assert model.predictor.kind == "mlp"
  assert (ema.base, ema.schedule) == (0.996, "constant")
  closed = experiment_config("small_pytorch", "closed_form")
  config.validate(closed)
  assert closed.model.predictor.kind == "closed_form"
  assert closed.ema.base == 0
  with pytest.raises(errors.UserError, match="mlp, closed_form"):
    experiment_config("small_pytorch", "linear")


def test_a_small_pytorch_run_trains_and_copies_its_target(monkeypatch):
  monkeypatch.setitem(encoders.ENCODERS, "Patches", network_cases.PATCHES)
  settings = convert.updated(
    convert.typed(experiment_config("small_pytorch", "closed_form")),
    {
      "model.encoder.name": "Patches",
      "model.projector.hidden_size": 16,
      "model.projector.output_size": 6,
      "model.predictor.hidden_size": 16,
      "data.image_size": 8,
    },
  )
  built = build.build_learner(settings, plan.make_plan(settings, 256), 1)
  images = np.random.RandomState(0).rand(2, 8, 8, 8, 3).astype(np.float32)
  batch = {"view1": images[0], "view2": images[1], "label": np.zeros(8, int)}
  state = built.init(jax.random.key(0), batch)
  after, metrics = jax.jit(built.update)(state, batch)
  assert np.isfinite(metrics["loss"])
  np.testing.assert_allclose(metrics["learning_rate"], 0.03 * 128 / 256)
  target, online = (
    params["patches/linear"]["w"]
    for params in (after.target_params, after.online_params)
  )
  np.testing.assert_allclose(target, online, atol=1e-6)
  assert np.any(online != state.online_params["patches/linear"]["w"])


def store(folder, name, version, features, splits):
  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version=version,
    data_dir=folder,
    features=tfds.features.FeaturesDict(features),
    split_datasets=splits,
  )


@pytest.mark.slow
def test_imagenet_trains_two_real_steps(tmp_path):
  rng = np.random.RandomState(0)
  photos = sklearn_datasets.load_sample_images().images

  def example(i):
    height, width = rng.randint(200, 400, 2)
    image = photos[i % 2][-height:, :width]
    return i, {"image": image, "label": i, "file_name": f"{i}.JPEG"}

  store(
    tmp_path,
    "imagenet2012",
    "5.1.0",
    {
      "image": tfds.features.Image(encoding_format="jpeg"),
      "label": tfds.features.ClassLabel(num_classes=1000),
      "file_name": tfds.features.Text(),
    },
    {
      "train": [example(i) for i in range(10)],
      "validation": [example(i) for i in range(4)],
    },
  )
  done = command_line.run(
    "--config=experiments/imagenet.py:300",
    f"--config.data.data_dir={tmp_path}",
    f"--workdir={tmp_path / 'run'}",
    "--config.train.batch_size=4",
    "--config.train.steps=2",
    "--config.log.diagnose=False",
    "--config.evaluation.baselines=False",
    "--config.evaluation.knn.k=3",
    "--config.evaluation.linear.epochs=1",
  )
  assert done.returncode == 0, done.stderr
  (row,) = [
    json.loads(line)
    for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
  ]
  assert row["step"] == 2
  assert 0 < row["train/repr_loss"] < 8
  results = json.loads((tmp_path / "run/results.json").read_text())
  assert results["knn/top1"]["examples"] == 4


def read_idx(path):
  """An array of the format that MNIST came in (yann.lecun.com)."""
  with gzip.open(path) as f:
    _, _, dtype, rank = f.read(4)
    assert dtype == 8  # uint8
    shape = [int.from_bytes(f.read(4), "big") for _ in range(rank)]
    return np.frombuffer(f.read(), np.uint8).reshape(shape)


@pytest.mark.slow
@pytest.mark.skipif(
  not FASHION.exists(), reason="needs `apt-get install dataset-fashion-mnist`"
)
def test_fashion_mnist_from_a_users_own_tfds_folder(tmp_path):
  def examples(part, count):
    images = read_idx(FASHION / f"{part}-images-idx3-ubyte.gz")[:count]
    labels = read_idx(FASHION / f"{part}-labels-idx1-ubyte.gz")[:count]
    return [
      (i, {"image": image[..., None], "label": int(label)})
      for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]

  store(
    tmp_path,
    "fashion_mnist",
    "3.0.1",
    {
      "image": tfds.features.Image(shape=(28, 28, 1)),
      "label": tfds.features.ClassLabel(num_classes=10),
    },
    {"train": examples("train", 2000), "test": examples("t10k", 500)},
  )
  done = command_line.run(
    "--config=experiments/fashion_mnist.py",
    f"--config.data.data_dir={tmp_path}",
    f"--workdir={tmp_path / 'run'}",
    "--config.model.encoder.name=TinyResNet",
    "--config.train.batch_size=64",
    "--config.train.steps=60",
    "--config.log.diagnose=False",
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "run/results.json").read_text())
  for name in ("knn/top1", "linear/top1", "baseline/pixels_knn_top1"):
    assert results[name]["examples"] == 500
    assert results[name]["value"] > 0.5, name  # Chance is 0.1.
