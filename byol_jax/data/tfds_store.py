"""Opens data sets that tfds keeps on disk, and prepares missing ones."""

import contextlib
import io
import json
import os
import socket
import textwrap
import urllib.request
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils import error_utils

from byol_jax import errors
from byol_jax.data.mnist_digits import MnistDigits

# The files that describe a prepared data set.
_DESCRIPTIONS = ("features.json", "dataset_info.json")
# Our choice: an image folder's list of broken files, the longest we know, has
# 100 bytes a file.
_MOST_DESCRIPTION_BYTES = 1_000_000_000
# The keys of features.json whose text is a class, by both names of a field of
# tfds' `Feature` proto, and as tfds before 4.5 wrote it.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_TFDS_PACKAGE = "tensorflow_datasets."

# The first half of tfds' `builder_from_files`, which has no public form: the second
# half imports what the folder names.
_find_folder = error_utils.reraise_with_context(tfds.core.DatasetNotFoundError)(
  read_only_builder._find_builder_dir
)


def absolute_data_dir(data_dir: str) -> str:
  """Returns the absolute folder of tfds data sets that `data.data_dir` names.

  Args:
    data_dir: a path, which may start with ~, or the address of a bucket,
      gs://...; empty means the default of tfds, which is $TFDS_DATA_DIR or
      ~/tensorflow_datasets.

  Raises:
    UserError: if there is no such home folder.
  """
  folder = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
  if folder.startswith("~"):
    raise errors.UserError(
      f"data.data_dir={folder} is in a home folder that does not exist; set it,"
      " or the environment variable TFDS_DATA_DIR, to another folder."
    )
  return folder if "://" in folder else os.path.abspath(folder)


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
  """Keeps tfds from printing and from drawing progress bars."""
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    yield


def one_line(text: str) -> str:
  """Returns a message shortened to 160 characters without line breaks."""
  return textwrap.shorten(text, 160)


def open_prepared(
  tfds_name: str, data_dir: str
) -> tfds.core.DatasetBuilder | None:
  """Returns a builder of a data set on disk, or None if there is none.

  The builder follows the description on disk, not the code in tfds, so it reads
  any version and also data that a user stored under the same name.

  Args:
    tfds_name: name in tfds, with the configuration if there is one.
    data_dir: absolute folder of tfds data sets.

  Raises:
    UserError: see `open_folder`.
  """
  try:
    folder = _find_folder(tfds_name, data_dir=data_dir)
  except (OSError, ValueError):
    return None
  return open_folder(str(folder)) if folder else None


def open_folder(folder: str) -> tfds.core.DatasetBuilder:
  """Returns a builder of the data set in a folder.

  The folder may come from anyone: no code but that of tfds is imported.

  Args:
    folder: holds features.json, dataset_info.json and the records.

  Raises:
    UserError: if the description is damaged, or names a class that is not part
      of tfds.
  """
  try:
    for name in _DESCRIPTIONS:
      _check_description(os.path.join(folder, name))
    return read_only_builder.builder_from_directory(folder)
  except errors.UserError:
    raise
  except Exception as error:  # tfds raises whatever it meets.
    reason = one_line(f"{type(error).__name__}: {error}")
    raise errors.UserError(
      f"{folder} is incomplete or damaged ({reason}); copy it again, or delete"
      " it and run this again."
    ) from error


def _check_description(path: str) -> None:
  """Raises `UserError` if a description is too large or names foreign classes.

  tfds imports the module of any class that features.json names.
  """
  size = tf.io.gfile.stat(path).length
  if size > _MOST_DESCRIPTION_BYTES:
    raise errors.UserError(
      f"{path} has {size} bytes, too many for a description of a data set;"
      " copy it again, or delete its folder and prepare the data set again."
    )
  with tf.io.gfile.GFile(path) as file:
    remaining = [json.loads(file.read())]
  while remaining:
    node = remaining.pop()
    if isinstance(node, list):
      remaining.extend(node)
    elif isinstance(node, dict):
      remaining.extend(node.values())
      for key in _CLASS_KEYS:
        name = node.get(key)
        if isinstance(name, str) and not name.startswith(_TFDS_PACKAGE):
          raise errors.UserError(
            f"{path} names the class {name}, which is not part of tfds and is"
            " not imported; prepare the data set with features of tfds alone."
          )


def prepare(
  name: str, tfds_name: str, data_dir: str
) -> tfds.core.DatasetBuilder:
  """Downloads a data set, writes it to disk and returns its builder.

  tfds writes into a temporary folder and renames it at the end, so an
  interrupted preparation leaves nothing that looks like a data set.

  Args:
    name: name of the data set in messages.
    tfds_name: name in tfds, with the configuration if there is one.
    data_dir: absolute folder of tfds data sets.

  Raises:
    UserError: if tfds does not know the name, the download fails, files must be
      downloaded by hand, or the folder cannot be written.
  """
  logging.info("Preparing %s in %s.", tfds_name, data_dir)
  remedy = (
    f"run `tfds build {tfds_name} --data_dir={data_dir}` on a machine with a"
    " network and copy the folder here"
  )
  try:
    with quiet_tfds():
      builder = tfds.builder(tfds_name, data_dir=data_dir)
      if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        remedy = (
          "put the files named on https://www.tensorflow.org/datasets/catalog/"
          f"{builder.name} into {os.path.join(data_dir, 'downloads', 'manual')}"
          " and run this again"
        )
      elif tfds_name != MnistDigits.name:
        _require_network()
      builder.download_and_prepare()
    if not builder.is_prepared():  # tfds takes any folder for a data set.
      raise OSError(f"delete {builder.data_dir}, which is incomplete")
    return builder
  except Exception as error:
    # Another process may have prepared the data set in the meantime.
    if builder := open_prepared(tfds_name, data_dir):
      return builder
    raise errors.UserError(
      f"{name} is not in {data_dir} and could not be prepared"
      f" ({type(error).__name__}: {one_line(str(error))}); {remedy}."
    ) from error


def _require_network() -> None:
  """Raises OSError if host names cannot be resolved and there is no proxy.

  Without this check, tfds repeats each download for minutes before it fails.
  """
  if not urllib.request.getproxies():
    socket.getaddrinfo("storage.googleapis.com", 443)
