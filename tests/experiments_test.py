"""The experiments on data in the form that tfds gives them."""

import gzip
import json
import pathlib

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn import datasets as sklearn_datasets

from byol_jax import config, errors
from byol_jax.config import convert
from byol_jax.models import encoders
from byol_jax.training import build, plan
from tests import command_line, network_cases
from tests.experiment_configs import experiment_config

EXPERIMENTS = sorted(
  path.stem for path in (command_line.ROOT / "experiments").glob("*.py")
)
# Debian's package dataset-fashion-mnist.
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_valid_configuration(name):
  config.validate(experiment_config(name))


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
