"""Stores data sets for tests in the form of tfds, and reads them."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.data import loading


def read(source, split) -> tuple[np.ndarray, np.ndarray]:
  examples = list(tfds.as_numpy(source.builder.as_dataset(split=split)))
  return (
    np.stack([example["image"] for example in examples]),
    np.array([example["label"] for example in examples]),
  )


def load_error(name, data_dir) -> str:
  with pytest.raises(errors.UserError) as info:
    loading.load(name, str(data_dir))
  message = str(info.value)
  assert "\n" not in message
  return message


def store(data_dir, *, name="fashion_mnist", version="3.0.1", **options):
  examples = [
    (i, {"image": np.full((28, 28, 1), i, np.uint8), "label": i})
    for i in range(6)
  ]
  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version=version,
    data_dir=data_dir,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=7),
      }
    ),
    split_datasets={"train": examples, "test": examples[:2]},
    **options,
  )


def store_images(data_dir, name, splits, feature=None):
  """A data set without labels, of an image under some name."""
  feature = feature or tfds.features.Image(shape=(9, 9, 3))
  example = {name: np.zeros(feature.shape, feature.np_dtype)}
  tfds.dataset_builders.store_as_tfds_dataset(
    name="my_own",
    version="1.0.0",
    data_dir=data_dir,
    features=tfds.features.FeaturesDict({name: feature}),
    split_datasets={split: [(0, example)] for split in splits},
  )
