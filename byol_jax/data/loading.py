"""Opens a data set by its name or as a folder of images."""

import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import image_folder, tfds_store
from byol_jax.data import source as source_lib
from byol_jax.data.folder_layout import TRAINED
from byol_jax.data.mnist_digits import MnistDigits
from byol_jax.data.registry import DATASETS, NOT_IN_TFDS, Dataset
from byol_jax.data.tensorflow_setup import configure_tensorflow
from byol_jax.data.tfds_source import Source

# Stands before the name of a data set that tfds knows and `DATASETS` need not.
_PREFIX = "tfds:"


def load(name: str, data_dir: str) -> Source:
  """Opens a data set, and first downloads and prepares it if it is not on disk.

  Any version that is on disk is used.

  Args:
    name: a name in `DATASETS`, or `tfds:` and a name that tfds knows.
    data_dir: folder of tfds data sets; empty means the default of tfds, which
      is $TFDS_DATA_DIR or ~/tensorflow_datasets.

  Raises:
    UserError: if the name is unknown, the data set cannot be prepared, it has
      no images or no train split, or files of it are missing.
  """
  configure_tensorflow()
  if name in NOT_IN_TFDS:
    raise errors.UserError(
      f"tfds does not have {name}; download it from {NOT_IN_TFDS[name]}, put"
      f" each class in a folder of its own below {name}/train and {name}/test,"
      f" and set dataset=folder and root={name} instead."
    )
  if "[" in name:
    raise errors.UserError(
      f"data set {name!r} must be named without {name[name.index('[') :]}; choose"
      " its part by data.split, such as data.split=train[:10%], or for evaluations"
      " by evaluation.train_split and evaluation.test_split."
    )
  has_prefix = name.startswith(_PREFIX)
  if not has_prefix and name not in DATASETS:
    raise errors.unknown_name(
      "data set", name, [*DATASETS, "folder", "arrays", f"{_PREFIX}NAME"]
    )
  tfds_name = (
    name.removeprefix(_PREFIX) if has_prefix else DATASETS[name].tfds_name
  )
  folder = tfds_store.absolute_data_dir(data_dir)
  needs_folder = data_dir and tfds_name != MnistDigits.name
  if needs_folder and not tf.io.gfile.isdir(folder):
    raise errors.UserError(
      f"{name} cannot be read because data_dir={data_dir!r} is not a folder;"
      " create it, or leave data_dir empty for the default of tfds."
    )
  builder = tfds_store.open_prepared(tfds_name, folder)
  builder = builder or tfds_store.prepare(name, tfds_name, folder)
  dataset = _describe(builder, tfds_name) if has_prefix else DATASETS[name]
  _check(builder)
  return Source(builder, dataset, _class_names(builder, dataset))


def load_folder(root: str, options: schema.DataConfig) -> Source:
  """Opens a folder of images, and first writes it as tfds records if needed.

  Args:
    root: path of the folder, or of a text file that lists images.
    options: `data_dir`, `labels`, `test_share` and `max_broken` are used.

  Returns:
    The data set. It has no test split, and no labels, where the folder has no
    classes; see `image_folder.load`.

  Raises:
    UserError: if `root` is not a folder, holds too few usable images, or the
      records cannot be written.
  """
  configure_tensorflow()
  if not root:
    raise errors.UserError(
      "root is empty; set it to the folder of images, as in"
      " --config.data.root=DIR."
    )
  folder = image_folder.load(root, options)
  info = folder.builder.info
  label = dict(info.features).get("label")
  path = os.path.abspath(os.path.expanduser(root))
  dataset = _describe(folder.builder, path)._replace(
    statistics=folder.statistics,
    pretrain="+".join(name for name in TRAINED if name in info.splits),
    metric="map11" if isinstance(label, tfds.features.Sequence) else "top1",
  )
  return Source(
    builder=folder.builder,
    dataset=dataset,
    class_names=_class_names(folder.builder, dataset),
    broken=folder.broken,
    notes=folder.notes,
    fingerprint=folder.fingerprint,
  )


def select(source: Source, split: str, fraction: float) -> Source:
  """Returns a data set of which a part is pretrained on.

  Args:
    source: the data set.
    split: split expression like `train[:10%]`, or `all` for every split; empty
      for the data set's own.
    fraction: of each split in the expression the first part that is taken, in
      (0, 1]. It is a random part: tfds and `image_folder` store shuffled
      examples.

  Raises:
    UserError: if there is no such split, or no example in it.
  """
  split = split or source.dataset.pretrain
  if split == "all":  # By its parts, from which messages tell what is used.
    split = source_lib.all_splits(source)
  splits = source.builder.info.splits
  try:
    size = num_examples(source, split)
  except errors.UserError:
    size = 0
  if size <= 0:
    sizes = [f"{name} ({splits[name].num_examples})" for name in sorted(splits)]
    raise errors.UserError(
      f"data.split={split!r} selects no images; combine the splits of"
      f" {source.dataset.tfds_name} or their parts, as in train[:10%]+test, from:"
      f" {', '.join(sizes)}."
    )
  if fraction < 1:
    spec = tfds.core.ReadInstruction.from_spec(split)
    split = "+".join(
      _first_part(
        part.splitname,
        range(splits[part.splitname].num_examples)[part.from_ : part.to],
        fraction,
      )
      for part in spec.to_absolute(splits)
    )
  return source._replace(dataset=source.dataset._replace(pretrain=split))


def split_info(source: Source, split: str) -> tfds.core.SplitInfo:
  """Returns the description by tfds of a split expression like `train[:50%]`.

  Raises:
    UserError: if there is no such split; the message lists the existing ones.
  """
  splits = source.builder.info.splits
  try:
    return splits[split]
  # tfds has no parts of `all`.
  except (KeyError, ValueError, NotImplementedError) as error:
    name = f"split of {source.dataset.tfds_name}"
    raise errors.unknown_name(name, split, sorted(splits)) from error


def num_examples(source: Source, split: str) -> int:
  """Returns the number of examples in a split expression like `train[:50%]`.

  Raises:
    UserError: if there is no such split; the message lists the existing ones.
  """
  return split_info(source, split).num_examples


def _first_part(name: str, indices: range, fraction: float) -> str:
  """Returns the expression of the first part of a slice, at least one example."""
  count = max(round(fraction * len(indices)), min(len(indices), 1))
  return f"{name}[{indices.start}:{indices.start + count}]"


def _describe(builder: tfds.core.DatasetBuilder, tfds_name: str) -> Dataset:
  """Returns a description that follows the usual names of splits.

  Hyper-parameters are chosen on a split called validation, unless it is the
  only one to test on.
  """
  splits = builder.info.splits
  if "train" not in splits:
    raise errors.UserError(
      f"{tfds_name} has no split called train, only"
      f" {', '.join(sorted(splits)) or 'none'}; choose another data set."
    )
  validation, test = (
    name if name in splits and splits[name].num_examples else ""
    for name in ("validation", "test")
  )
  if not test:
    validation, test = "", validation
  return Dataset(tfds_name, validation=validation, test=test)


def _class_names(
  builder: tfds.core.DatasetBuilder, dataset: Dataset
) -> list[str]:
  """Returns the names of the classes; [] if there is no label to evaluate on.

  A list of classes per image only counts as a label if the metric is map11.
  """
  label: Any = dict(builder.info.features).get(dataset.label)
  if dataset.metric == "map11" and isinstance(label, tfds.features.Sequence):
    label = label.feature
  is_class = isinstance(label, tfds.features.ClassLabel)
  return label.names if is_class and label.num_classes else []


def _check_image(builder: tfds.core.DatasetBuilder) -> None:
  """Raises `UserError` unless there are images that training decodes rightly."""
  features = dict(builder.info.features)
  path = os.path.join(str(builder.data_dir), "features.json")
  image = features.get("image")
  if not isinstance(image, tfds.features.Image):
    raise errors.UserError(
      f"{path} names {', '.join(sorted(features))}, but no image called 'image';"
      " prepare the data set with one."
    )
  channels = image.shape[-1]
  if image.np_dtype != np.uint8 or channels not in (None, 0, 1, 3):
    raise errors.UserError(
      f"{path} describes images of {np.dtype(image.np_dtype).name} and"
      f" {channels} channels, but only uint8 and 1 or 3 channels can be read;"
      " write the images to files and set data.dataset=folder, which scales 16"
      " bits and puts transparent images on white."
    )


def _check(builder: tfds.core.DatasetBuilder) -> None:
  """Raises `UserError` unless all records on disk can be read."""
  info = builder.info
  if info.file_format != tfds.core.FileFormat.TFRECORD:
    raise errors.UserError(
      f"{builder.data_dir} holds {info.file_format.value} files, but only"
      " tfrecord can be read; prepare it again with file_format='tfrecord'."
    )
  _check_image(builder)
  existing = set(tf.io.gfile.listdir(str(builder.data_dir)))
  for split in info.splits.values():
    for path in split.filepaths:
      if path.name not in existing:
        raise errors.UserError(
          f"{path} is missing; copy it again, or delete the folder and prepare"
          " the data set again."
        )
