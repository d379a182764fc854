"""Opens a folder of images as a tfds data set, which it writes only once.

Two passes read the files of a folder. The first decodes them to find the broken
files, the classes and the channel statistics; the second writes the records.
"""

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import PIL.Image
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import folder_builder, tfds_store
from byol_jax.data.folder_builder import FolderBuilder
from byol_jax.data.folder_inspect import BrokenFile, Image, inspect_all
from byol_jax.data.folder_scan import File, list_files
from byol_jax.data.folder_splits import class_names, split_images
from byol_jax.data.registry import Statistics

LABELS = ("folders", "none")


class ImageFolder(NamedTuple):
  """A folder of images that is ready to be read.

  Attributes:
    builder: reads the records; has the split train and may have test.
    broken: files that are left out, sorted by path.
    statistics: of the channels of the split train, and of the short sides of
      all images.
  """

  builder: tfds.core.DatasetBuilder
  broken: list[BrokenFile]
  statistics: Statistics


def load(root: str, options: schema.DataConfig) -> ImageFolder:
  """Opens a folder of images, and first writes it as tfds records if needed.

  Any file below the root whose contents are an image is used, unless its name
  or that of a folder above it starts with a dot. If the root has folders
  `train` and `test` (or `val`, `valid`, `validation`), they are the splits
  train and test. Otherwise a fraction of each class may be held out as test.

  The records are in `data_dir/image_folder/<name>-<hash>/1.0.0`. The hash
  covers root, labels, test_share and the path, size and time of every file, so
  a folder that changes is written again.

  Args:
    root: path of the folder.
    options: these keys are used:
      data_dir: folder of tfds data sets; is created.
      labels: "folders", if the outermost folders are the classes, or "none".
        There are no labels either if there is only one class, or if any image
        lies outside of all classes.
      test_share: fraction of each class to hold out, in [0, 1); has no effect
        if there are no labels or if the splits are folders.
      max_broken: the largest fraction of files that may be left out.

  Returns:
    The data set, with features `image`, `file` (path relative to the root) and,
    if there are labels, `label`.

  Raises:
    UserError: if there is no such folder, it holds no image to train on, too
      many files are broken, or the records cannot be written.
  """
  root = os.path.abspath(os.path.expanduser(root))
  if options.labels not in LABELS:
    raise errors.unknown_name("data.labels", options.labels, LABELS)
  if not os.path.isdir(root):
    raise errors.UserError(
      f"{root} is not a folder; set root to a folder of images."
    )
  data_dir = tfds_store.absolute_data_dir(options.data_dir)
  files = list_files(root, os.path.join(data_dir, FolderBuilder.name))
  name = config_name(root, options.labels, float(options.test_share), files)
  path = os.path.join(
    data_dir, FolderBuilder.name, name, str(FolderBuilder.VERSION)
  )
  if not os.path.isdir(path):
    with _quiet():
      contents = _inspect(root, files, options)
      folder_builder.write(contents, data_dir, name)
  folder = _open(path)
  infos = folder.builder.info.splits.values()
  total = sum(info.num_examples for info in infos) + len(folder.broken)
  _require_few_broken(root, folder.broken, total, options.max_broken)
  return folder


def config_name(
  root: str, labels: str, test_share: float, files: Sequence[File]
) -> str:
  """Returns a folder name that identifies a folder of images and its contents.

  Returns:
    The last part of the root, and eight digits of a hash of all arguments.
  """
  # Records on disk are found by the hash of this text, so its form is fixed.
  # The class File was called _File when the first records were written.
  listed = ", ".join(f"_{file!r}" for file in files)
  text = f"({root!r}, {labels!r}, {test_share!r}, [{listed}])"
  digest = hashlib.sha256(text.encode()).hexdigest()
  name = re.sub(r"[^A-Za-z0-9_.-]+", "_", os.path.basename(root))[:60]
  return f"{name or 'root'}-{digest[:8]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences tfds and Pillow, and makes too large images raise an error."""
  with tfds_store.quiet_tfds(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
    yield


def _inspect(
  root: str, files: Sequence[File], options: schema.DataConfig
) -> folder_builder.Contents:
  """Decodes all files, and returns the contents of the records to write."""
  images, broken = inspect_all(root, files)
  _require_images(root, images, broken)
  _require_few_broken(root, broken, len(files), options.max_broken)
  classes = class_names(images) if options.labels == "folders" else []
  has_test_folder = any(file.split == "test" for file in files)
  holds_out = classes and not has_test_folder
  splits = split_images(images, options.test_share if holds_out else 0)
  return folder_builder.Contents(root, classes, splits, broken)


def _require_images(
  root: str, images: Sequence[Image], broken: Sequence[BrokenFile]
) -> None:
  """Raises `UserError` unless there is an image to train on."""
  if not any(image.file.split == "train" for image in images):
    path, reason = broken[0] if broken else (root, "no files in it")
    raise errors.UserError(
      f"{root} holds no images to train on; first problem: {path} ({reason});"
      " set root to a folder of JPEG, PNG, BMP or GIF files."
    )


def _require_few_broken(
  root: str, broken: Sequence[BrokenFile], total: int, max_broken: float
) -> None:
  """Raises `UserError` if the fraction of broken files exceeds `max_broken`."""
  if len(broken) / total > max_broken:
    path, reason = broken[0]
    raise errors.UserError(
      f"{len(broken)} of {total} files in {root} cannot be used, more than"
      f" data.max_broken={max_broken} allows; first: {path} ({reason}); remove"
      " them or raise data.max_broken."
    )


def _open(path: str) -> ImageFolder:
  """Opens the records in a folder; raises `UserError` if files are missing."""
  builder = tfds_store.open_folder(path)
  try:
    metadata = builder.info.metadata
    return ImageFolder(
      builder,
      [BrokenFile(*file) for file in metadata["broken"]],
      Statistics(
        tuple(metadata["mean"]), tuple(metadata["std"]), metadata["side"]
      ),
    )
  except (TypeError, ValueError, KeyError) as error:
    raise errors.UserError(
      f"{path} is incomplete; delete it and run this again."
    ) from error
