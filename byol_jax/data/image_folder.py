"""Any folder of images, made into a tfds data set once and then only read.

Two passes are made over the files of a folder: one decodes them, which tells
the broken ones, the classes and the statistics; the other writes the records.
"""

import collections
import contextlib
import hashlib
import io
import os
import re
import stat
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core import read_only_builder

from byol_jax import errors

LABELS = ("folders", "none")
# Every file is looked at, archives and films too, but only one that starts like
# an image is read to its end.
_MAGIC = re.compile(
  rb"\xff\xd8\xff|\x89PNG|BM|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|P[1-6]\s", re.S
)
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # The same.
_BOMBS = (
  PIL.Image.DecompressionBombError,
  PIL.Image.DecompressionBombWarning,
)


class ImageFolder(NamedTuple):
  """A folder of images that is ready to be read, and what is known of it."""

  builder: tfds.core.DatasetBuilder  # Has "train", may have "test".
  broken: list[tuple[str, str]]  # (path below the root, reason), sorted.
  mean: tuple[float, float, float]  # Of the channels of "train", in [0, 1].
  std: tuple[float, float, float]
  side: int  # Median short side of the images, pixels.


class _File(NamedTuple):
  path: str  # Below the root.
  size: int  # -1 if it cannot be read.
  mtime_ns: int
  split: str
  label: str  # The outermost folder in that of the split; empty if none.


class _Image(NamedTuple):
  file: _File
  as_it_is: bool  # Else it is stored as a PNG.
  side: int
  moments: np.ndarray  # [2, 3], means of the channels and of their squares.


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
  files = _files(root, os.path.join(data_dir, _Builder.name))
  config = _config_name(root, labels, float(test_share), files)
  path = os.path.join(data_dir, _Builder.name, config, str(_Builder.VERSION))
  if not os.path.isdir(path):
    with _quiet():
      images, broken = _look_at_all(root, files)
      _require_images(root, images, broken)
      _require_few_broken(root, broken, len(files), max_broken)
      classes = _classes(images) if labels == "folders" else []
      one_tree = all(file.split == "train" for file in files)
      splits = _splits(images, test_share if classes and one_tree else 0)
      builder = _Builder(root, data_dir, config, classes, splits, broken)
      _write(builder, root, data_dir)
  opened = _open(path)
  infos = opened.builder.info.splits.values()
  total = sum(info.num_examples for info in infos) + len(opened.broken)
  _require_few_broken(root, opened.broken, total, max_broken)
  return opened


def _files(root: str, ours: str) -> list[_File]:
  """Returns all files of all splits, sorted by path."""
  splits = {"train": ""}
  for test in ("validation", "valid", "val", "test"):
    if all(os.path.isdir(os.path.join(root, sub)) for sub in ("train", test)):
      splits = {"train": "train", "test": test}
  files = []
  for split, sub in splits.items():
    for path, size, mtime_ns in _walk(root, sub, {os.path.realpath(ours)}):
      label, *inner = os.path.relpath(path, sub or ".").split(os.sep)
      label = _text(label) if inner else ""
      files.append(_File(path, size, mtime_ns, split, label))
  return sorted(files)


def _walk(
  root: str, sub: str, above: set[str]
) -> Iterator[tuple[str, int, int]]:
  """Yields (path below the root, size, time) of all files in a sub-folder.

  Links are followed, but not to what they lie in. A folder that cannot be
  listed is treated like a file that cannot be read.
  """
  real = os.path.realpath(os.path.join(root, sub))
  if real in above:
    return
  try:
    names = [name for name in os.listdir(real) if not name.startswith(".")]
  except OSError:
    yield sub, -1, -1
    return
  for path in (os.path.join(sub, name) for name in names):
    try:
      info = os.stat(os.path.join(root, path))
    except OSError:  # Such as a link to nowhere.
      yield path, -1, -1
      continue
    if stat.S_ISDIR(info.st_mode):
      yield from _walk(root, path, above | {real})
    elif stat.S_ISREG(info.st_mode):
      yield path, info.st_size, info.st_mtime_ns


def _config_name(root: str, *content: Any) -> str:
  """Returns a folder name that people recognise and no other content has."""
  digest = hashlib.sha256(repr((root, *content)).encode()).hexdigest()
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


def _parallel(
  function: Callable, items: Sequence, title: str
) -> Iterator[tuple[Any, Any]]:
  """Yields each item and its result in order, a few of them made ahead."""
  workers = os.cpu_count() or 1
  pending: collections.deque = collections.deque()
  with (
    futures.ThreadPoolExecutor(workers) as pool,
    tqdm.tqdm(desc=title, total=len(items), unit="file", disable=None) as bar,
  ):
    for i, item in enumerate(items):
      while len(pending) < 4 * workers and i + len(pending) < len(items):
        pending.append(pool.submit(function, items[i + len(pending)]))
      yield item, pending.popleft().result()
      bar.update()


def _look_at_all(
  root: str, files: Sequence[_File]
) -> tuple[list[_Image], list[tuple[str, str]]]:
  """Returns the images of a folder, and which files are left out and why."""
  images, broken = [], []
  title = f"Preparing {os.path.basename(root)}"
  for file, look in _parallel(lambda file: _look(root, file), files, title):
    if isinstance(look, _Image):
      images.append(look)
    else:
      broken.append((_text(file.path), look))
  return images, broken


def _look(root: str, file: _File) -> _Image | str:
  """Returns what there is to know of an image, or why it cannot be used."""
  try:
    data = _read(root, file)
    if not _MAGIC.match(data):
      return "not an image" if data else "empty file"
    decoded = _decode(data)
    pixels = np.asarray(_rgb(data)) if decoded is None else decoded
  except _BOMBS as error:
    return f"too large: {textwrap.shorten(str(error), 80)}"
  except PIL.UnidentifiedImageError:  # Says nothing but an address in memory.
    return "truncated or corrupt: its header makes no sense"
  except Exception as error:  # Pillow's decoders raise all there is.
    if isinstance(error, OSError) and error.errno:
      return f"cannot be read: {error.strerror}"
    return f"truncated or corrupt: {textwrap.shorten(str(error), 80)}"
  side = min(pixels.shape[:2])
  return _Image(file, decoded is not None, side, _moments(pixels))


def _read(root: str, file: _File) -> bytes:
  """Returns a file's bytes, no more than the first of them if no image's."""
  with open(os.path.join(root, file.path), "rb") as opened:
    head = opened.read(16)
    return head + opened.read() if _MAGIC.match(head) else head


def _decode(data: bytes) -> np.ndarray | None:
  """Returns pixels [H, W, 3] as training will see them, None if it cannot."""
  if data.startswith(b"BM"):
    return None  # TensorFlow takes numbers in a palette for shades of grey.
  try:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
  except tf.errors.OpError:
    return None
  return image.numpy() if image.shape.num_elements() else None


def _rgb(data: bytes) -> PIL.Image.Image:
  """Returns an image as Pillow reads it, which knows more formats."""
  with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
    if image.mode in ("I", "F"):
      raise ValueError(f"nothing says what is white in mode {image.mode}")
    if image.mode.startswith("I;16"):  # convert() would clip, not scale.
      scaled = (np.asarray(image) >> 8).astype(np.uint8)
      return PIL.Image.fromarray(scaled).convert("RGB")
    return image.convert("RGB")


def _moments(pixels: np.ndarray) -> np.ndarray:
  """Returns means [2, 3] of an image's channels, in [0, 1], and squares."""
  if min(pixels.shape[:2]) >= 8:
    pixels = pixels[::4, ::4]
  values = pixels.reshape(-1, 3) / 255
  return np.stack([values.mean(axis=0), np.square(values).mean(axis=0)])


def _text(path: str) -> str:
  """Returns a path as valid Unicode, which names on disk need not be."""
  return os.fsencode(path).decode(errors="replace")


def _require_images(
  root: str, images: Sequence[_Image], broken: Sequence[tuple[str, str]]
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


def _classes(images: Sequence[_Image]) -> list[str]:
  """Returns the names of all classes; none unless all images have one."""
  names = sorted({image.file.label for image in images})
  return names if "" not in names and len(names) > 1 else []


def _splits(
  images: Sequence[_Image], held_out: float
) -> dict[str, list[_Image]]:
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


def _hash(image: _Image) -> bytes:
  return hashlib.sha256(os.fsencode(image.file.path)).digest()


class _Builder(tfds.core.GeneratorBasedBuilder):
  """Writes the records of one folder; reading them does not need it."""

  name = "image_folder"  # Each folder is a configuration of it.
  VERSION = tfds.core.Version("1.0.0")

  def __init__(self, root, data_dir, config, classes, splits, broken):
    self._root, self._classes, self._splits = root, classes, splits
    mean, square = np.mean([x.moments for x in splits["train"]], axis=0)
    std = np.sqrt(np.maximum(square - np.square(mean), 1e-6))  # At least 1e-3.
    sides = [image.side for images in splits.values() for image in images]
    self._metadata = tfds.core.MetadataDict(
      broken=broken,
      mean=mean.round(4).tolist(),
      std=std.round(4).tolist(),
      side=int(np.median(sides)),
    )
    config = tfds.core.BuilderConfig(name=config)
    super().__init__(data_dir=data_dir, config=config)

  def _create_builder_config(self, builder_config, version):
    del version
    return builder_config  # tfds would warn that the class does not list it.

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "file": tfds.features.Text(),
    }
    if self._classes:
      features["label"] = tfds.features.ClassLabel(names=self._classes)
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"Images from {_text(self._root)}.",
      features=tfds.features.FeaturesDict(features),
      metadata=self._metadata,
    )

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(split, images)
      for split, images in self._splits.items()
    }

  def _generate_examples(self, split, images):
    title = f"Writing {os.path.basename(self._root)} ({split})"
    for image, data in _parallel(self._stored, images, title):
      example = {"image": data, "file": _text(image.file.path)}
      if self._classes:
        example["label"] = image.file.label
      yield os.fsencode(image.file.path), example

  def _stored(self, image: _Image) -> bytes:
    data = _read(self._root, image.file)
    if image.as_it_is:
      return data
    png = io.BytesIO()
    _rgb(data).save(png, "PNG")
    return png.getvalue()


def _write(builder: _Builder, root: str, data_dir: str) -> None:
  """Writes the records; `UserError` if that fails.

  tfds writes into a folder of another name and renames it at the end, so
  nothing half-done is ever taken for a data set.
  """
  path = builder.data_dir
  try:
    builder.download_and_prepare(file_format=tfds.core.FileFormat.TFRECORD)
  except Exception as error:
    if os.path.isdir(path):
      return  # Another process was faster.
    reason = " ".join(str(error).split())[-160:]  # Starts with long paths.
    raise errors.UserError(
      f"{root} could not be prepared in {data_dir}"
      f" ({type(error).__name__}: {reason}); choose a data.data_dir that can be"
      " written and has room for all images."
    ) from error


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
