"""Finds the file that made reading a split fail."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from byol_jax import errors
from byol_jax.data import loading, records, tfds_store

_REMEDY = "copy it again, or delete the folder and prepare the data set again"


def explain_errors(
  iterator: Iterator[Any], source: loading.Source, split: str
) -> Iterator[Any]:
  """Yields the elements of an iterator that reads a split.

  Raises:
    UserError: if TensorFlow fails; names the file at fault.
  """
  # When a program ends, Python clears the names of modules before it closes streams.
  failure = tf.errors.OpError
  try:
    yield from iterator
  except failure as error:
    raise errors.UserError(_diagnose(source, split, error)) from error


def _diagnose(
  source: loading.Source, split: str, error: tf.errors.OpError
) -> str:
  """Reads the files of a split one by one and describes the first bad one."""
  parse = records.parser(source)
  for file in records.split_files(source, split):
    if not tf.io.gfile.exists(file.name):
      return f"{file.name} is missing; {_REMEDY}."
    try:
      for record in records.read_in_order([file]):
        parse(record)
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError):
      return f"{file.name} is truncated or corrupt; {_REMEDY}."
    except tf.errors.OpError as found:
      reason = tfds_store.one_line(found.message)
      return (
        f"{file.name} holds a record that does not fit the features.json beside"
        f" it ({reason}); {_REMEDY}."
      )
  reason = tfds_store.one_line(error.message)
  return (
    f"{source.builder.data_dir} could not be read ({reason}), although each of"
    " its files can be; run this again."
  )
