"""Reads and writes files of decoded images, as NumPy's `.npz`."""

import hashlib
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.augment import spec
from byol_jax.data.images import Images
from byol_jax.data.registry import Statistics

_IMAGES, _LABELS, _SIZES, _ABOUT = "_images", "_labels", "_sizes", "about"
_WHITE = "white"
_TYPES = (np.uint8, np.uint16)
_REMEDY = "write it by --mode=arrays, or as docs/data.md shows"


class About(NamedTuple):
  """What a file says of its images.

  Attributes:
    class_names: by label; empty without labels.
    pretrain: split expression of the images to pretrain on.
    metric: a name in `evaluation.metrics.METRICS`.
    statistics: of the channels; None to have them measured.
  """

  class_names: Sequence[str]
  pretrain: str = "train"
  metric: str = "top1"
  statistics: Statistics | None = None


def read(path: str) -> tuple[dict[str, Images], About]:
  """Reads a file of arrays.

  Each split NAME has `NAME_images`, [N, H, W] or [N, H, W, C] uint8 or uint16,
  and may have `NAME_labels`, [N] whole numbers with -1 where unknown or
  [N, classes] of 0 and 1, and `NAME_sizes`, [N, 2] height and width of images that
  stand at the top left of larger arrays. `white`, a whole number, is the value that
  stands for 1; by default 255 or 65,535. `class_names` [C] and `about`, which
  `write` adds, may be missing.

  Args:
    path: of the file.

  Returns:
    The images of each split, of which train is one, scaled to 255 or 65,535 for
    white, and what they are.

  Raises:
    UserError: if the file cannot be read, or its arrays do not belong together.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise errors.UserError(
      f"{path} cannot be read as a .npz of arrays ({reason}); {_REMEDY}."
    ) from error
  names = [x.removesuffix(_IMAGES) for x in arrays if x.endswith(_IMAGES)]
  if "train" not in names:
    raise errors.UserError(
      f"{path} holds no train_images, only {', '.join(arrays) or 'nothing'};"
      f" {_REMEDY}."
    )
  types = {arrays[name + _IMAGES].dtype for name in names}
  if len(types) > 1:
    raise errors.UserError(
      f"{path}: the images of all splits must have one type, not"
      f" {' and '.join(sorted(map(str, types)))}; {_REMEDY}."
    )
  splits = {name: _split(path, name, arrays) for name in names}
  if _WHITE in arrays:
    splits = _whitened(path, splits, arrays[_WHITE])
  return splits, _about(path, splits, arrays)


def write(
  path: pathlib.Path, splits: Mapping[str, Images], about: About
) -> None:
  """Writes a file that `read` reads, compressed."""
  arrays: dict[str, Any] = {"class_names": np.array(about.class_names, str)}
  for name, images in splits.items():
    arrays[name + _IMAGES] = images.pixels
    arrays[name + _LABELS] = images.labels
    arrays[name + _SIZES] = images.sizes
  found = about._asdict() | {
    "statistics": about.statistics and about.statistics._asdict()
  }
  found.pop("class_names")
  arrays[_ABOUT] = np.array(json.dumps(found))
  with path.open("wb") as file:
    np.savez_compressed(file, **arrays)


def fingerprint(splits: Mapping[str, Images]) -> str:
  """Returns a checksum of all images and labels, 16 hexadecimal digits."""
  total = hashlib.sha256()
  for name in sorted(splits):
    for array in splits[name]:
      total.update(f"{name} {array.shape}".encode())
      total.update(np.ascontiguousarray(array).data)
  return total.hexdigest()[:16]


def joined(parts: Sequence[Images]) -> Images:
  """Returns the images of several arrays in one, as large as the largest."""
  height, width = np.max([part.pixels.shape[1:3] for part in parts], axis=0)

  def padded(pixels: np.ndarray) -> np.ndarray:
    beside = ((0, height - pixels.shape[1]), (0, width - pixels.shape[2]))
    return np.pad(pixels, ((0, 0), *beside, (0, 0)))

  return Images(
    np.concatenate([padded(part.pixels) for part in parts]),
    np.concatenate([part.sizes for part in parts]),
    np.concatenate([part.labels for part in parts]),
  )


def _split(path: str, name: str, arrays: Mapping[str, np.ndarray]) -> Images:
  """Returns the images of a split; raises `UserError` if they are none."""

  def require(condition: Any, what: str, rule: str) -> None:
    if not condition:
      array = arrays[name + what]
      raise errors.UserError(
        f"{path}: {name}{what} is {array.dtype}{list(array.shape)}, but must be"
        f" {rule}; {_REMEDY}."
      )

  pixels = arrays[name + _IMAGES]
  require(
    pixels.dtype in _TYPES and pixels.ndim in (3, 4) and pixels.size,
    _IMAGES,
    "uint8 or uint16[N, H, W, C] with at least one image",
  )
  pixels = pixels.reshape(*pixels.shape[:3], -1)
  count = len(pixels)
  labels = arrays.get(name + _LABELS, np.full(count, -1))
  if name + _LABELS in arrays:
    require(
      labels.dtype.kind in "iu"
      and labels.ndim in (1, 2)
      and len(labels) == count,
      _LABELS,
      f"whole numbers[{count}] or [{count}, classes]",
    )
  sizes = arrays.get(name + _SIZES, np.tile(pixels.shape[1:3], (count, 1)))
  if name + _SIZES in arrays:
    fits = sizes.shape == (count, 2) and sizes.dtype.kind in "iu"
    fits = fits and bool(np.all((sizes > 0) & (sizes <= pixels.shape[1:3])))
    require(fits, _SIZES, f"whole numbers[{count}, 2] of heights and widths")
  return Images(pixels, sizes.astype(np.int32), labels.astype(np.int32))


def _whitened(
  path: str, splits: Mapping[str, Images], white: np.ndarray
) -> dict[str, Images]:
  """Returns images whose largest value stands for 1 instead of `white`.

  No two values become one, but those above `white` count as white.
  """
  dtype = splits["train"].pixels.dtype
  most = spec.white(dtype)
  if white.size != 1 or white.dtype.kind not in "iu" or not 0 < white <= most:
    raise errors.UserError(
      f"{path}: {_WHITE}={white.tolist()} must be a whole number from 1 to {most};"
      f" {_REMEDY}."
    )
  levels = np.arange(most + 1) * most / int(white)
  table = np.minimum(np.round(levels), most).astype(dtype)
  return {
    name: images._replace(pixels=table[images.pixels])
    for name, images in splits.items()
  }


def _about(
  path: str, splits: Mapping[str, Images], arrays: Mapping[str, np.ndarray]
) -> About:
  """Returns what a file says, or what follows from its arrays."""
  labels = splits["train"].labels
  names = [str(x) for x in np.atleast_1d(arrays.get("class_names", []))]
  most = max(int(x.labels.max()) for x in splits.values())
  classes = labels.shape[1] if labels.ndim == 2 else most + 1
  if not names and classes > 1:
    names = [str(i) for i in range(classes)]
  if (
    len(names) < classes
    or min(int(x.labels.min()) for x in splits.values()) < -1
  ):
    raise errors.UserError(
      f"{path}: labels must lie from -1 to {len(names) - 1}, as class_names has"
      f" {len(names)} names; {_REMEDY}."
    )
  unlabelled = "+train_unlabelled" if "train_unlabelled" in splits else ""
  found: dict[str, Any] = {
    "pretrain": "train" + unlabelled,
    "metric": "map11" if labels.ndim == 2 else "top1",
  }
  try:
    found |= json.loads(str(arrays.get(_ABOUT, "{}")))
    if statistics := found.get("statistics"):
      mean, std = (tuple(statistics[key]) for key in ("mean", "std"))
      found["statistics"] = Statistics(mean, std, statistics["side"])
    return About(names, **found)
  except (ValueError, TypeError, KeyError) as error:
    raise errors.UserError(
      f"{path}: its text {_ABOUT!r} is damaged ({error}); {_REMEDY}."
    ) from error
