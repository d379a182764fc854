"""Which images of a folder are of which class and split."""

import collections
import hashlib
import os
from collections.abc import Sequence

from byol_jax import errors
from byol_jax.data.folder_inspect import Image


def class_names(images: Sequence[Image]) -> list[str]:
  """Returns the names of all classes; none unless all images have one."""
  names = sorted({image.file.label for image in images})
  return names if "" not in names and len(names) > 1 else []


def split_images(
  images: Sequence[Image], held_out: float
) -> dict[str, list[Image]]:
  """Returns the images of each split, some of each class moved to "test".

  They are those with the smallest hashes, so that another image more or less
  in the folder changes little.
  """
  sizes = collections.Counter(image.file.label for image in images)
  left = {name: round(held_out * size) for name, size in sizes.items()}
  splits = collections.defaultdict(list)
  for image in sorted(images, key=_hash):
    if left[image.file.label]:
      left[image.file.label] -= 1
      splits["test"].append(image)
    else:
      splits[image.file.split].append(image)
  if "train" not in splits:
    raise errors.UserError(
      f"data.test_share={held_out} leaves no image to train on; lower it."
    )
  return dict(splits)


def _hash(image: Image) -> bytes:
  return hashlib.sha256(os.fsencode(image.file.path)).digest()
