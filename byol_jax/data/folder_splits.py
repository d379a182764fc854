"""Derives the classes and the splits of a folder of images."""

import collections
import hashlib
import os
import re
from collections.abc import Iterable, Sequence

from byol_jax.data.folder_inspect import Image
from byol_jax.data.folder_layout import UNLABELLED
from byol_jax.data.folder_scan import File


def class_names(files: Iterable[File]) -> list[str]:
  """Returns the names of all classes in order.

  Names are sorted as numbers if all are numbers, and else as text. The list is
  empty if any file outside of the splits without labels has none, or if there
  is only one class.
  """
  names: set[str] = set()
  for label in {x.label for x in files if not x.split.endswith(UNLABELLED)}:
    names.update([label] if isinstance(label, str) else label)
  return _sort(names) if "" not in names and len(names) > 1 else []


def is_multi_label(files: Iterable[File]) -> bool:
  """Returns whether an image may have several classes."""
  return any(isinstance(file.label, tuple) for file in files)


def num_held_out(size: int, fraction: float) -> int:
  """Returns how many images of a class are held out for testing.

  At least one image is held out, unless the fraction is 0, and at least one
  remains to train on.

  Args:
    size: the number of images, at least 1.
    fraction: the fraction to hold out, in [0, 1).
  """
  wanted = max(round(fraction * size), 1) if fraction else 0
  return min(wanted, size - 1)


def split_images(
  images: Sequence[Image], test_fraction: float
) -> dict[str, list[Image]]:
  """Returns the images of each split, in an order that looks random.

  In each class, the images whose paths have the smallest hashes move from train
  to test. One more image in a class therefore moves at most one other image.
  Images that may have several classes count as one class here.

  Args:
    images: images with the splits of their files.
    test_fraction: fraction of each class in train to move to test, in [0, 1).
  """
  multi_label = is_multi_label(image.file for image in images)

  def group(image: Image) -> str | tuple[str, ...]:
    return "" if multi_label else image.file.label

  sizes = collections.Counter(
    group(image) for image in images if image.file.split == "train"
  )
  remaining = {
    name: num_held_out(size, test_fraction) for name, size in sizes.items()
  }
  splits = collections.defaultdict(list)
  for image in sorted(images, key=_path_hash):
    if image.file.split == "train" and remaining[group(image)]:
      remaining[group(image)] -= 1
      splits["test"].append(image)
    else:
      splits[image.file.split].append(image)
  return dict(splits)


def _sort(names: Iterable[str]) -> list[str]:
  """Returns names sorted as numbers if all are numbers, and else as text."""
  ordered = sorted(names)
  # Longer ones are no numbers that anyone counts in.
  if all(re.fullmatch("[0-9]{1,18}", name) for name in ordered):
    ordered.sort(key=int)
  return ordered


def _path_hash(image: Image) -> bytes:
  return hashlib.sha256(os.fsencode(image.file.path)).digest()
