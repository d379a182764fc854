"""Opens data sets that tfds keeps on disk, and prepares missing ones."""

import contextlib
import io
import os
import socket
import textwrap
import urllib.request
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import read_only_builder

from byol_jax import errors
from byol_jax.data.mnist_digits import MnistDigits


def absolute_data_dir(data_dir: str) -> str:
  """Returns the absolute folder of tfds data sets that `data.data_dir` names.

  Args:
    data_dir: a path, which may start with ~; empty means the default of tfds,
      which is $TFDS_DATA_DIR or ~/tensorflow_datasets.
  """
  return os.path.abspath(
    os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
  )


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
  """Returns a builder of a data set on disk, or None if none is complete.

  The builder follows the description on disk, not the code in tfds, so it reads
  any version and also data that a user stored under the same name.

  Args:
    tfds_name: name in tfds, with the configuration if there is one.
    data_dir: absolute folder of tfds data sets.
  """
  try:
    return read_only_builder.builder_from_files(tfds_name, data_dir=data_dir)
  except (tfds.core.DatasetNotFoundError, OSError, ValueError):
    return None


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
