"""Any folder of images, made into a tfds data set once and then only read.

Two passes are made over the files of a folder: one decodes them, which tells
the broken ones, the classes and the statistics; the other writes the records.
"""

import contextlib
import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import PIL.Image
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from byol_jax import errors
from byol_jax.data.folder_builder import FolderBuilder, write
from byol_jax.data.folder_inspect import Image, inspect_all
from byol_jax.data.folder_scan import File, list_files
from byol_jax.data.folder_splits import class_names, split_images

LABELS = ("folders", "none")


class ImageFolder(NamedTuple):
  """A folder of images that is ready to be read, and what is known of it."""

  builder: tfds.core.DatasetBuilder  # Has "train", may have "test".
  broken: list[tuple[str, str]]  # (path below the root, reason), sorted.
  mean: tuple[float, float, float]  # Of the channels of "train", in [0, 1].
  std: tuple[float, float, float]
  side: int  # Median short side of the images, pixels.


def load(
  root: str,
  data_dir: str,
  *,
  labels: str,
  test_share: float,
  max_broken: float,
) -> ImageFolder:
  """Opens a folder of images, preparing it where that is not on disk.

  Images are found by their contents, wherever they lie below the root; names
  that start with a dot are passed over. Sub-folders `train` and `test` (or
  `val`, `valid`, `validation`) are the splits "train" and "test". Else all is
  one tree, of which a share of each class may be held out as "test".

  What is prepared lies in `data_dir/image_folder/<name>-<hash>/1.0.0`. The hash
  is of root, labels, test_share and of path, size and time of all files, so a
  folder that has changed is prepared anew.

  Args:
    root: the folder.
    data_dir: absolute folder of tfds data sets; is created.
    labels: "folders", where the outermost folders are the classes, or "none".
      There are no labels either if there is but one class, or if any image lies
      outside of all.
    test_share: share of each class to hold out, in [0, 1); without effect if
      there are no labels or if the splits are folders.
    max_broken: the largest share of files that may be left out.

  Returns:
    The data set, with features `image`, `file` (path below the root) and, if
    there are labels, `label`.

  Raises:
    UserError: if there is no such folder, nothing in it can be trained on, too
      many files are broken, or the records cannot be written.
  """
  root = os.path.abspath(os.path.expanduser(root))
  if labels not in LABELS:
    raise errors.unknown_name("data.labels", labels, LABELS)
  if not os.path.isdir(root):
    raise errors.UserError(f"{root} is not a folder; name a folder of images.")
  files = list_files(root, os.path.join(data_dir, FolderBuilder.name))
  config = _config_name(root, labels, float(test_share), files)
  path = os.path.join(
    data_dir, FolderBuilder.name, config, str(FolderBuilder.VERSION)
  )
  if not os.path.isdir(path):
    with _quiet():
      images, broken = inspect_all(root, files)
      _require_images(root, images, broken)
      _require_few_broken(root, broken, len(files), max_broken)
      classes = class_names(images) if labels == "folders" else []
      one_tree = all(file.split == "train" for file in files)
      splits = split_images(images, test_share if classes and one_tree else 0)
      builder = FolderBuilder(root, data_dir, config, classes, splits, broken)
      write(builder, root, data_dir)
  opened = _open(path)
  infos = opened.builder.info.splits.values()
  total = sum(info.num_examples for info in infos) + len(opened.broken)
  _require_few_broken(root, opened.broken, total, max_broken)
  return opened


def _config_name(
  root: str, labels: str, test_share: float, files: Sequence[File]
) -> str:
  """Returns a folder name that people recognise and no other content has."""
  # The form of this text must not change: data sets on disk are found by it.
  listed = ", ".join(f"_{file!r}" for file in files)
  content = f"({root!r}, {labels!r}, {test_share!r}, [{listed}])"
  digest = hashlib.sha256(content.encode()).hexdigest()
  name = re.sub(r"[^A-Za-z0-9_.-]+", "_", os.path.basename(root))[:60]
  return f"{name or 'root'}-{digest[:8]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Silences tfds and Pillow; images that would fill the memory are errors."""
  tfds.disable_progress_bar()
  with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
    yield


def _require_images(
  root: str, images: Sequence[Image], broken: Sequence[tuple[str, str]]
) -> None:
  """Raises `UserError` if there is nothing to train on."""
  if not any(image.file.split == "train" for image in images):
    path, reason = broken[0] if broken else (root, "no files in it")
    raise errors.UserError(
      f"{root} holds no images to train on; first problem: {path} ({reason});"
      " name a folder of JPEG, PNG, BMP or GIF files."
    )


def _require_few_broken(
  root: str, broken: Sequence[tuple[str, str]], total: int, max_broken: float
) -> None:
  """Raises `UserError` if a larger share of files is broken than may be."""
  if len(broken) / total > max_broken:
    path, reason = broken[0]
    raise errors.UserError(
      f"{len(broken)} of {total} files in {root} cannot be used, more than"
      f" data.max_broken={max_broken} allows; first: {path} ({reason}); remove"
      " them or raise data.max_broken."
    )


def _open(path: str) -> ImageFolder:
  """Opens what is on disk; `UserError` if that is not all there."""
  try:
    builder = read_only_builder.builder_from_directory(path)
    metadata = builder.info.metadata
    return ImageFolder(
      builder,
      [(file, reason) for file, reason in metadata["broken"]],
      tuple(metadata["mean"]),
      tuple(metadata["std"]),
      metadata["side"],
    )
  except (OSError, ValueError, KeyError) as error:
    raise errors.UserError(
      f"{path} is incomplete; delete it and run this again."
    ) from error
