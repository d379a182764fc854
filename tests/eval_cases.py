"""Small data sets, configurations and runs to evaluate on."""

import haiku as hk
import numpy as np
import tensorflow_datasets as tfds
from ml_collections import config_dict

from byol_jax import config
from byol_jax.cli import flags
from byol_jax.evaluation import eval_model
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.features import Features
from byol_jax.evaluation.protocols import PROTOCOLS
from byol_jax.learning.learner import TrainState
from byol_jax.training import runs

CLASSES = 3


def clusters(count: int, spread: float, seed: int) -> Features:
  """Three classes around three directions."""
  rng = np.random.RandomState(seed)
  labels = rng.randint(0, 3, count).astype(np.int32)
  vectors = np.eye(3, 5)[labels] + spread * rng.randn(count, 5)
  return Features(vectors.astype(np.float32), labels)


def noise(count: int, seed: int) -> np.ndarray:
  """Random vectors [count, 5]."""
  return np.random.RandomState(seed).randn(count, 5).astype(np.float32)


def brute_force(queries, bank, k):
  """Indices and cosines of nearest neighbours, in float64, pair by pair."""
  cosines = np.array(
    [
      [q @ b / np.sqrt((q @ q) * (b @ b)) for b in bank.astype(np.float64)]
      for q in queries.astype(np.float64)
    ]
  )
  indices = np.argsort(-cosines, axis=1)[:, :k]
  return indices, np.take_along_axis(cosines, indices, axis=1)


def store_colours(folder, name="cifar10", **splits: int) -> None:
  """Stores squares whose colour depends on their class, with noise."""
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


def store_multi_label(folder) -> None:
  """Stores squares, as VOC2007, in which any of three colours may be strong."""
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


def options(workdir, **changes) -> flags.Options:
  """What the command line says of an evaluation, except for some changes."""
  usual = flags.Options(
    mode="evaluate",
    workdir=workdir,
    step=None,
    encoder="",
    import_from="",
    watch=False,
    split="",
    compare=(),
    coordinator="",
    num_processes=None,
    process_id=None,
  )
  return usual._replace(**changes)


# An entry of `results.json`.
RESULT = {
  "value": 0.5,
  "protocol": "knn",
  "metric": "top1",
  "dataset": "digits",
  "train_split": "train",
  "split": "test",
  "examples": 10,
  "step": 7,
  "network": "online",
}


def small_config(folder) -> config_dict.ConfigDict:
  """A configuration of all protocols for what `store_colours` stores."""
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
  cfg.log.diagnose = False  # It compiles as long as the update does.
  return cfg


def prepare(folder, cfg, **splits: int) -> runs.Run:
  """Stores coloured squares and opens a run on them."""
  store_colours(folder, **(splits or {"train": 53, "test": 31}))
  workdir = folder / "run"
  workdir.mkdir()
  return runs.prepare(cfg, workdir)


def settled_state(run: runs.Run) -> TrainState:
  """The untrained state at the last step, with batch norm as the identity."""
  state = run.initial_state()
  identity = hk.data_structures.map(  # Mean 0, variance 1.
    lambda module, _, value: np.full_like(value, "var_ema" in module),
    state.online_state,
  )
  return state._replace(
    online_state=identity, step=np.int32(run.plan.total_steps)
  )


def untrained(run, source) -> eval_model.EvalModel:
  """The baseline of the untrained network."""
  return eval_model.untrained(run, source, "train")


def measured(run, protocol: str, make_model=eval_model.pixels) -> dict:
  """The metrics of a protocol, by name."""
  source = splits_lib.open_source(run)
  splits = splits_lib.make_splits(run, source)
  return dict(PROTOCOLS[protocol].run(make_model(run, source), splits))
