"""Tells which examples a split holds, without decoding them."""

import os
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax.data import diagnosis, loading, records


def example_ids(source: loading.Source, split: str) -> list[str]:
  """Returns an id of each example of a split, in the order of the files.

  The id is the file name that the data set stores with the example, as for
  folders of images. Other data sets get the name of the record file and the
  index of the record in it, which is how tfds makes ids.

  Raises:
    UserError: if there is no such split, or a file cannot be read.
  """
  files = records.split_files(source, split)
  features = source.builder.info.features
  names = [name for name in ("file", "file_name") if name in features]
  if names:
    feature = tfds.features.FeaturesDict({names[0]: features[names[0]]})
    stored = records.read_in_order(files).map(
      lambda record: feature.deserialize_example(record)[names[0]]
    )
    reader = stored.as_numpy_iterator()
    found = diagnosis.explain_errors(reader, source, split)
    return [name.decode() for name in found]
  return [
    f"{os.path.basename(file.name)}__{file.skip + i}"
    for file in files
    for i in range(file.take)
  ]


def split_names(source: loading.Source, split: str) -> list[str]:
  """Returns the name of the split of each example of a split expression.

  Raises:
    UserError: if there is no such split.
  """
  of_file = {
    str(path): name
    for name, info in source.builder.info.splits.items()
    for path in info.filepaths
  }
  return [
    of_file[file.name]
    for file in records.split_files(source, split)
    for _ in range(file.take)
  ]


def cache_key(source: loading.Source, split: str) -> list[list[Any]]:
  """Returns JSON-compatible values that change when a split's examples do.

  Returns:
    For each file its name, the number of records that are skipped and taken,
    its size in bytes and its modification time in nanoseconds.

  Raises:
    UserError: if there is no such split.
  """
  found = []
  for file in records.split_files(source, split):
    status = tf.io.gfile.stat(file.name)
    found.append([*file, status.length, status.mtime_nsec])
  return found


def num_shared(source: loading.Source, split: str, other: str) -> int:
  """Returns the number of examples that two split expressions have in common.

  Raises:
    UserError: if one of them does not exist.
  """
  return sum(
    max(min(a.skip + a.take, b.skip + b.take) - max(a.skip, b.skip), 0)
    for a in records.split_files(source, split)
    for b in records.split_files(source, other)
    if a.name == b.name
  )
