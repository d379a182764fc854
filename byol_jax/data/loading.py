"""Opens and prepares data sets, all of them read through tfds."""

import contextlib
import io
import os
import socket
import textwrap
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import read_only_builder

from byol_jax import errors
from byol_jax.data import image_folder
from byol_jax.data.mnist_digits import MnistDigits
from byol_jax.data.registry import DATASETS, NOT_IN_TFDS, Dataset, Statistics

# TensorFlow only feeds images here; accelerators and their memory are JAX's.
tf.config.set_visible_devices([], "GPU")
# Images are made side by side, one a core: splitting each among the cores as
# well costs more than it brings (a fifth at 224 pixels on two).
tf.config.threading.set_intra_op_parallelism_threads(1)

# Before the name of any data set that tfds knows.
_PREFIX = "tfds:"


class Source(NamedTuple):
  """A data set that is ready to be read."""

  builder: tfds.core.DatasetBuilder
  dataset: Dataset
  num_classes: int  # 0 where there are no labels.
  broken: Sequence[tuple[str, str]] = ()  # Left out of a folder, and why.

  @property
  def is_multi_label(self) -> bool:
    """Whether an image may be of several classes."""
    return self.dataset.metric == "map11"


def load(name: str, data_dir: str) -> Source:
  """Opens a data set, downloading and preparing it where it is not on disk.

  Args:
    name: a name in `DATASETS`, or `tfds:` and a name that tfds knows.
    data_dir: folder of tfds data sets; empty means tfds' default, which is
      $TFDS_DATA_DIR or ~/tensorflow_datasets.

  Returns:
    The data set; whichever version is on disk is taken as it is.

  Raises:
    UserError: if the name is unknown, the data set cannot be had or not be
      used, or files of it are missing.
  """
  if name in NOT_IN_TFDS:
    raise errors.UserError(
      f"tfds has no {name}; get it from {NOT_IN_TFDS[name]}, put each class in"
      f" a folder of its own below {name}/train and {name}/test, and give"
      f" dataset=folder and root={name} instead."
    )
  given = name.startswith(_PREFIX)
  if not given and name not in DATASETS:
    raise errors.unknown_name(
      "data set", name, [*DATASETS, "folder", f"{_PREFIX}NAME"]
    )
  tfds_name = name.removeprefix(_PREFIX) if given else DATASETS[name].tfds_name
  root = _root(data_dir)
  ours = tfds_name == MnistDigits.name
  if data_dir and not ours and not tf.io.gfile.isdir(root):
    raise errors.UserError(
      f"data_dir={data_dir!r}, where {name} was looked for, is not a folder;"
      " create it, or leave data_dir empty for tfds' default."
    )
  builder = _open(tfds_name, root) or _prepare(name, tfds_name, root)
  dataset = _described(builder, tfds_name) if given else DATASETS[name]
  _check(builder)
  return Source(builder, dataset, _num_classes(builder, dataset))


def load_folder(
  root: str,
  data_dir: str,
  *,
  labels: str,
  test_share: float,
  max_broken: float,
) -> Source:
  """Opens a folder of images, storing it in tfds' form where it is not yet.

  Args:
    root: the folder.
    data_dir: see `load`.
    labels: folders, where sub-folders are classes, or none.
    test_share: what is held out for testing where the folder has no split.
    max_broken: the largest share of files that may be unusable.

  Returns:
    The data set. Without labels all of it is the train split.

  Raises:
    UserError: if there is no such folder, or too little in it can be used.
  """
  if not root:
    raise errors.UserError(
      "root is empty; give the folder of images, as in --config.data.root=DIR."
    )
  folder = image_folder.load(
    root,
    _root(data_dir),
    labels=labels,
    test_share=test_share,
    max_broken=max_broken,
  )
  dataset = Dataset(
    os.path.abspath(os.path.expanduser(root)),
    Statistics(folder.mean, folder.std, folder.side),
    test="test" if "test" in folder.builder.info.splits else "",
  )
  num_classes = _num_classes(folder.builder, dataset)
  return Source(folder.builder, dataset, num_classes, folder.broken)


def _root(data_dir: str) -> str:
  return os.path.abspath(
    os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
  )


def _described(builder: tfds.core.DatasetBuilder, tfds_name: str) -> Dataset:
  """What the splits of a data set are for, by their usual names."""
  splits = builder.info.splits
  if "train" not in splits:
    raise errors.UserError(
      f"{tfds_name} has no split called train, only"
      f" {', '.join(sorted(splits)) or 'none'}; choose another data set."
    )
  tests = [name for name in ("test", "validation") if name in splits]
  return Dataset(tfds_name, test=tests[0] if tests else "")


def _num_classes(builder: tfds.core.DatasetBuilder, dataset: Dataset) -> int:
  """Of the label; 0 if there is none, or many an image and not for map11."""
  label: Any = dict(builder.info.features).get(dataset.label)
  if dataset.metric == "map11" and isinstance(label, tfds.features.Sequence):
    label = label.feature
  is_class = isinstance(label, tfds.features.ClassLabel)
  return label.num_classes if is_class else 0


def _check(builder: tfds.core.DatasetBuilder) -> None:
  """Raises `UserError` if what is on disk cannot be read, or not all of it."""
  info = builder.info
  if info.file_format != tfds.core.FileFormat.TFRECORD:
    raise errors.UserError(
      f"{builder.data_dir} holds {info.file_format.value} files and only"
      " tfrecord can be read; prepare it again with file_format='tfrecord'."
    )
  features = dict(info.features)
  if not isinstance(features.get("image"), tfds.features.Image):
    raise errors.UserError(
      f"{os.path.join(str(builder.data_dir), 'features.json')} names"
      f" {', '.join(sorted(features))}, but no image called 'image'; prepare the"
      " data set with one."
    )
  there = set(tf.io.gfile.listdir(str(builder.data_dir)))
  for split in info.splits.values():
    for path in split.filepaths:
      if path.name not in there:
        raise errors.UserError(
          f"{path} is missing; copy it again, or delete the folder and prepare"
          " the data set anew."
        )


def one_line(text: str) -> str:
  """Returns a message short enough to be quoted in one."""
  return textwrap.shorten(text, 160)


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
  except (tfds.core.DatasetNotFoundError, OSError, ValueError):
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
    reason = one_line(str(error))
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
