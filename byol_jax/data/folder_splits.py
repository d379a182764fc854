"""Derives the classes and the splits of a folder of images."""

import collections
import hashlib
import os
from collections.abc import Sequence

from byol_jax import errors
from byol_jax.data.folder_inspect import Image


def class_names(images: Sequence[Image]) -> list[str]:
  """Returns the sorted names of all classes.

  The list is empty if any image has no label or if all have the same.
  """
  names = sorted({image.file.label for image in images})
  return names if "" not in names and len(names) > 1 else []


def split_images(
  images: Sequence[Image], test_fraction: float
) -> dict[str, list[Image]]:
  """Returns the images of each split, in an order that looks random.

  In each class, the images whose paths have the smallest hashes move to the
  split test. One more image in a class therefore moves at most one other image.

  Args:
    images: images with the splits of their files.
    test_fraction: fraction of each class to move to test, in [0, 1).

  Raises:
    UserError: if no image is left to train on.
  """
  sizes = collections.Counter(image.file.label for image in images)
  remaining = {
    label: round(test_fraction * size) for label, size in sizes.items()
  }
  splits = collections.defaultdict(list)
  for image in sorted(images, key=_path_hash):
    if remaining[image.file.label]:
      remaining[image.file.label] -= 1
      splits["test"].append(image)
    else:
      splits[image.file.split].append(image)
  if "train" not in splits:
    raise errors.UserError(
      f"data.test_share={test_fraction} leaves no image to train on; lower it."
    )
  return dict(splits)


def _path_hash(image: Image) -> bytes:
  return hashlib.sha256(os.fsencode(image.file.path)).digest()
