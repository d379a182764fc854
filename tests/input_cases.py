"""A small data set in several files, and short ways to read batches of it."""

import dataclasses
import itertools

import numpy as np
import tensorflow_datasets as tfds

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data import eval_input, train_input
from byol_jax.data import source as source_lib

SIZE = 97  # Prime, so no batch size divides it.
SHARDS = 5
_CONFIG = schema.AugmentConfig()
PAPER = {"view1": _CONFIG.view1, "view2": _CONFIG.view2}
CROP_ONLY = dataclasses.replace(
  PAPER["view1"],
  flip_prob=0.0,
  jitter_prob=0.0,
  grayscale_prob=0.0,
  blur_prob=0.0,
)
# Compiles quickly.
FLIPPED = dataclasses.replace(CROP_ONLY, flip_prob=0.5)
VIEWS = spec.Views(FLIPPED, FLIPPED, image_shape=(16, 16))
# Streamed through a small shuffle buffer, as one part.
OPTIONS = schema.DataConfig(shuffle_buffer=20, cache_bytes=0, parts=1)


def store(folder):
  """Writes 97 examples in five files; the label of each is its name."""
  rng = np.random.RandomState(0)
  examples = [
    (
      i,
      {
        "image": rng.randint(0, 256, (24, 20, 3), np.uint8),
        "label": i,
        "note": "not read",
      },
    )
    for i in range(SIZE)
  ]
  tfds.dataset_builders.store_as_tfds_dataset(
    name="cifar10",
    version="3.0.2",
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=SIZE),
        "note": tfds.features.Text(),
      }
    ),
    split_datasets={"train": examples},
    download_config=tfds.download.DownloadConfig(num_shards=SHARDS),
  )


def changed(settings, changes):
  """Settings with their fields among the changes, which are taken out."""
  if dataclasses.is_dataclass(settings):
    fields, replace = (
      [field.name for field in dataclasses.fields(settings)],
      dataclasses.replace,
    )
  else:
    fields, replace = settings._fields, type(settings)._replace
  names = [name for name in fields if name in changes]
  return replace(settings, **{name: changes.pop(name) for name in names})


def train_batches(source, count, **changes) -> list[dict[str, np.ndarray]]:
  """The first batches; changes are of views, pipeline options or arguments."""
  views, options = changed(VIEWS, changes), changed(OPTIONS, changes)
  iterator = train_input.train_batches(
    source, views, options, **({"batch_size": 10, "seed": 0} | changes)
  )
  return list(itertools.islice(iterator, count))


def eval_batches(source, split="train", **changes):
  """All batches; changes are of the centre crop or arguments."""
  crop = changed(source_lib.CentreCrop((16, 16), 0.875), changes)
  return list(
    eval_input.eval_batches(
      source, split, crop, **({"batch_size": 10} | changes)
    )
  )


def labels(batches) -> np.ndarray:
  return np.concatenate([batch["label"] for batch in batches])


def images_by_label(source) -> dict[int, np.ndarray]:
  return {
    example["label"]: example["image"]
    for example in tfds.as_numpy(source.builder.as_dataset(split="train"))
  }


def assert_equal(actual, expected):
  assert len(actual) == len(expected)
  for a, b in zip(actual, expected, strict=True):
    for name in ("view1", "view2", "label"):
      np.testing.assert_array_equal(a[name], b[name])
