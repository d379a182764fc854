"""Opens a folder of images as a tfds data set, which it writes only once.

The files of a folder are read twice: once to find the broken files, the classes
and the channel statistics, and once more to write the records.
"""

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow_datasets as tfds
from etils import epath

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.config.schema import LABELS
from byol_jax.data import (
  folder_builder,
  folder_listing,
  folder_notes,
  folder_splits,
  image_formats,
  tfds_store,
)
from byol_jax.data.folder_builder import FolderBuilder
from byol_jax.data.folder_inspect import BrokenFile, Image, inspect_all
from byol_jax.data.folder_listing import Scan
from byol_jax.data.registry import Statistics

# The version of what records hold of an image file. Increase it to write all
# folders again.
_PIXELS = 3


class ImageFolder(NamedTuple):
  """A folder of images that is ready to be read.

  Attributes:
    builder: reads the records; has the split train and may have validation,
      test and, for each of the three, one with the ending _unlabelled.
    broken: files that are left out, sorted by path.
    statistics: of the channels of the images to train on, and of the short
      sides of all images.
    notes: what the program made of the folder and its labels, a line each.
    fingerprint: a checksum of the images, of their paths below the root, their
      splits and their labels.
  """

  builder: tfds.core.DatasetBuilder
  broken: list[BrokenFile]
  statistics: Statistics
  notes: list[str]
  fingerprint: str


def load(root: str, options: schema.DataConfig) -> ImageFolder:
  """Opens a folder of images, and first writes it as tfds records if needed.

  Any file below the root whose contents are an image is used, unless its name
  or that of a folder above it starts with a dot. `folder_layout.arrange` says
  which folders are splits and classes. Where there is no test split, a fraction
  of each class may be held out as test.

  The records are in `data_dir/image_folder/<name>-<hash>/1.0.0`. The hash
  covers labels, test_share and the path below the root, size and time of every
  file. So a folder that changes is written again, and a folder that moves is
  not, whatever path leads to it.

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
  excluded = os.path.join(data_dir, FolderBuilder.name)
  found = folder_listing.scan(root, options.labels, excluded)
  key = cache_key(found, options)
  if not _records(data_dir, key):
    with _quiet():
      contents = _inspect(found, options)
      name = f"{_readable_name(found.root)}-{key}"
      folder_builder.write(contents, data_dir, name)
  # Several, if two processes wrote the same images from folders of other names.
  folder = _open(_records(data_dir, key)[0])
  info = folder.builder.info
  broken = {path for path, _ in folder.broken}
  listing = folder_listing.arrange(found, options, broken)
  total = sum(x.num_examples for x in info.splits.values()) + len(broken)
  _require_few_broken(found.root, folder.broken, total, options.max_broken)
  return folder._replace(notes=folder_notes.describe(listing, info))


def cache_key(found: Scan, options: schema.DataConfig) -> str:
  """Returns 16 digits of a hash of what records depend on; they are found by it.

  Args:
    found: the files.
    options: `labels` and `test_share` are used.
  """
  labels = options.labels if options.labels in LABELS else found.label_digest
  # Records on disk are found by the hash of this text, so its form is fixed.
  text = repr(
    (
      _PIXELS,
      labels,
      float(options.test_share),
      image_formats.optional_decoders(file.path for file in found.files),
      [tuple(file) for file in found.files],
    )
  )
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _records(data_dir: str, key: str) -> list[str]:
  """Returns the folders of records that a key finds, sorted."""
  folder = epath.Path(data_dir) / FolderBuilder.name  # Maybe in a bucket.
  if not folder.exists():
    return []
  names = sorted(x.name for x in folder.iterdir() if x.name.endswith(f"-{key}"))
  found = [folder / name / str(FolderBuilder.VERSION) for name in names]
  return [str(path) for path in found if path.exists()]


def _readable_name(root: str) -> str:
  """Returns the last part of a root, in letters that any disk can store."""
  name = re.sub(r"[^A-Za-z0-9_.-]+", "_", os.path.basename(root))[:60]
  return name or "root"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences tfds and Pillow."""
  with tfds_store.quiet_tfds(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    yield


def _inspect(
  found: Scan, options: schema.DataConfig
) -> folder_builder.Contents:
  """Decodes all files, and returns the contents of the records to write."""
  usable: dict[str, Image] = {}
  broken: list[BrokenFile] = []
  while True:
    listing = folder_listing.arrange(found, options, {x.path for x in broken})
    new = [file for file in listing.files if file.path not in usable]
    if usable and not new:
      break
    # If a folder that means a split holds no image, others may become classes.
    images, problems = inspect_all(found.root, new)
    usable |= {image.file.path: image for image in images}
    broken += problems
    _require_images(found.root, list(usable.values()), broken)
  total = len(usable) + len(broken)
  images = [usable[file.path]._replace(file=file) for file in listing.files]
  _require_few_broken(listing.root, broken, total, options.max_broken)
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
      " set root to a folder of JPEG, PNG, WebP or TIFF files."
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
    broken = [BrokenFile(*file) for file in metadata["broken"]]
    return ImageFolder(
      builder,
      broken,
      Statistics(
        tuple(metadata["mean"]), tuple(metadata["std"]), metadata["side"]
      ),
      [],
      metadata["fingerprint"],
    )
  except (TypeError, ValueError, KeyError) as error:
    raise errors.UserError(
      f"{path} is incomplete; delete it and run this again."
    ) from error
