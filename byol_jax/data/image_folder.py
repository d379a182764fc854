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
from tensorflow_datasets.core import read_only_builder

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import (
  folder_builder,
  folder_listing,
  folder_notes,
  folder_splits,
  tfds_store,
)
from byol_jax.data.folder_builder import FolderBuilder
from byol_jax.data.folder_inspect import BrokenFile, Image, inspect_all
from byol_jax.data.folder_listing import Listing
from byol_jax.data.folder_scan import File
from byol_jax.data.registry import Statistics


class ImageFolder(NamedTuple):
  """A folder of images that is ready to be read.

  Attributes:
    builder: reads the records; has the split train and may have validation,
      test and, for each of the three, one with the ending _unlabelled.
    broken: files that are left out, sorted by path.
    statistics: of the channels of the images to train on, and of the short
      sides of all images.
    notes: what the program made of the folder and its labels, a line each.
  """

  builder: tfds.core.DatasetBuilder
  broken: list[BrokenFile]
  statistics: Statistics
  notes: list[str]


def load(root: str, options: schema.DataConfig) -> ImageFolder:
  """Opens a folder of images, and first writes it as tfds records if needed.

  Any file below the root whose contents are an image is used, unless its name
  or that of a folder above it starts with a dot. `folder_layout.arrange` says
  which folders are splits and classes. Where there is no test split, a fraction
  of each class may be held out as test.

  The records are in `data_dir/image_folder/<name>-<hash>/1.0.0`. The hash
  covers root, labels, test_share and the path, size, time, split and label of
  every file, so a folder that changes is written again.

  Args:
    root: path of the folder, or of a text file that lists images; see
      `folder_scan.read_list`.
    options: these keys are used:
      data_dir: folder of tfds data sets; is created.
      labels: "folders", if folders are the classes, or "none", or the path of
        a CSV file; see `folder_labels.label_files`. There are no labels either
        if there is only one class, or if any image in the folders to train on
        lies outside of all classes.
      test_share: fraction of each class to hold out, in [0, 1); has no effect
        if there are no labels or if there is a test split.
      max_broken: the largest fraction of files that may be left out.

  Returns:
    The data set, with features `image`, `file` (path relative to the root) and,
    if there are labels, `label`: a class, or a list of classes if a CSV file
    gives an image several.

  Raises:
    UserError: if there is no such folder, its splits or labels are ambiguous,
      it holds no image to train on, too many files are broken, or the records
      cannot be written.
  """
  data_dir = tfds_store.absolute_data_dir(options.data_dir)
  listing = folder_listing.list_folder(
    root, options, os.path.join(data_dir, FolderBuilder.name)
  )
  name = config_name(
    listing.root,
    options.labels if options.labels in folder_listing.LABELS else "file",
    float(options.test_share),
    listing.files,
    folder_splits.rules(listing.files, listing.test_share),
  )
  path = os.path.join(
    data_dir, FolderBuilder.name, name, str(FolderBuilder.VERSION)
  )
  if not os.path.isdir(path):
    with _quiet():
      contents = _inspect(listing, options)
      folder_builder.write(contents, data_dir, name)
  folder = _open(path, listing)
  infos = folder.builder.info.splits.values()
  total = sum(info.num_examples for info in infos) + len(folder.broken)
  _require_few_broken(listing.root, folder.broken, total, options.max_broken)
  return folder


def config_name(
  root: str,
  labels: str,
  test_share: float,
  files: Sequence[File],
  rules: str = "",
) -> str:
  """Returns a folder name that identifies a folder of images and its contents.

  Returns:
    The last part of the root, and eight digits of a hash of all arguments.
  """
  # Records on disk are found by the hash of this text, so its form is fixed.
  # The class File was called _File when the first records were written.
  listed = ", ".join(f"_{file!r}" for file in files)
  text = f"({root!r}, {labels!r}, {test_share!r}, [{listed}]{rules})"
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
  listing: Listing, options: schema.DataConfig
) -> folder_builder.Contents:
  """Decodes all files, and returns the contents of the records to write."""
  images, broken = inspect_all(listing.root, listing.files)
  _require_images(listing.root, images, broken)
  _require_few_broken(
    listing.root, broken, len(listing.files), options.max_broken
  )
  files = [image.file for image in images]
  classes = folder_splits.class_names(files) if listing.wants_labels else []
  splits = folder_splits.split_images(
    images, listing.test_share if classes else 0
  )
  return folder_builder.Contents(
    listing.root, classes, splits, broken, folder_splits.is_multi_label(files)
  )


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


def _open(path: str, listing: Listing) -> ImageFolder:
  """Opens the records in a folder; raises `UserError` if files are missing."""
  try:
    builder = read_only_builder.builder_from_directory(path)
    metadata = builder.info.metadata
    broken = [BrokenFile(*file) for file in metadata["broken"]]
    return ImageFolder(
      builder,
      broken,
      Statistics(
        tuple(metadata["mean"]), tuple(metadata["std"]), metadata["side"]
      ),
      folder_notes.describe(listing, builder.info, broken),
    )
  except (OSError, ValueError, KeyError) as error:
    raise errors.UserError(
      f"{path} is incomplete; delete it and run this again."
    ) from error
