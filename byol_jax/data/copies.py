"""Copies of data sets with smaller images, from which training reads faster.

A copy has the files of the records of the original, with the same examples in the
same order. Only the images differ.
"""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import PIL.Image
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import diagnosis, loading, pixels, records, tfds_store
from byol_jax.data.thread_map import thread_map

# Below the folder of data sets of tfds.
_FOLDER = "copies"
_DESCRIPTION = "dataset_info.json"
# Our choice: JPEGs of this quality show no visible loss.
_JPEG_QUALITY = 95
# Pillow averages whole blocks first where they are this much smaller than a result's
# pixel: several times as fast, and hardly another result (its documentation).
_REDUCING_GAP = 3.0
# Images that are copied to foretell time and size. Our choice.
_SAMPLE = 64


def open_copy(
  source: loading.Source,
  options: schema.DataConfig,
  tell: Callable[[str], None],
) -> loading.Source:
  """Returns a data set with smaller images, which is first written if needed.

  The copy is in `data_dir/copies/<name>-<side>-<format>-<hash>` and holds the splits
  of which a part is pretrained on. The hash covers these, the description of the data
  set and the sizes of its files. Each file is written under another name first, so a
  preparation that is interrupted goes on with the next file.

  Args:
    source: the data set.
    options: these keys are used:
      copy_side: the longest short side of an image, pixels. Images with a longer one
        are scaled down, with antialiasing; the others are copied as they are.
      copy_format: "jpeg", or "raw", which is larger and needs no decoding.
      data_dir: folder of tfds data sets.
    tell: prints a line for people.

  Raises:
    UserError: if the disk has no room, or a file cannot be read or written.
  """
  splits = _pretrain_splits(source)
  folder = os.path.join(
    tfds_store.absolute_data_dir(options.data_dir),
    _FOLDER,
    _name(source, splits, options),
  )
  files = [
    (split, str(path))
    for split in splits
    for path in source.builder.info.splits[split].filepaths
  ]
  is_raw = options.copy_format == "raw"
  if not tf.io.gfile.exists(os.path.join(folder, _DESCRIPTION)):
    try:
      tf.io.gfile.makedirs(folder)
      missing = [
        (split, path) for split, path in files if not _is_in(folder, path)
      ]
      shrink = _shrinker(source, options.copy_side, is_raw)
      _foretell(source, missing, shrink, folder, options, tell)
      for i, (split, path) in enumerate(missing):
        title = f"{source.dataset.tfds_name}, file {i + 1} of {len(missing)}"
        copied = _copy(path, shrink, title)
        _write(diagnosis.explain_errors(copied, source, split), folder, path)
      _describe(source, splits, folder)
    except (OSError, tf.errors.OpError) as error:
      reason = tfds_store.one_line(str(error))
      raise errors.UserError(
        f"{folder} cannot be written ({reason}); free space there or choose another"
        " data.data_dir, and run this again: it goes on where it stopped."
      ) from error
  builder = tfds_store.open_folder(folder)
  return source._replace(builder=builder, is_raw=is_raw)


def _pretrain_splits(source: loading.Source) -> list[str]:
  """Returns the splits of which a part is pretrained on."""
  instruction = tfds.core.ReadInstruction.from_spec(source.dataset.pretrain)
  absolute = instruction.to_absolute(source.builder.info.splits)
  return sorted({part.splitname for part in absolute})


def _name(
  source: loading.Source, splits: Sequence[str], options: schema.DataConfig
) -> str:
  """Returns the name of the folder of a copy."""
  info = source.builder.info
  paths = [path for split in splits for path in info.splits[split].filepaths]
  sizes = [
    (path.name, tf.io.gfile.stat(str(path)).length)
    for path in paths
    if tf.io.gfile.exists(str(path))
  ]
  features = info.features.to_json()
  text = repr((info.full_name, features, sizes))
  digest = hashlib.sha256(text.encode()).hexdigest()[:16]
  return f"{info.name}-{options.copy_side}-{options.copy_format}-{digest}"


def _is_in(folder: str, path: str) -> bool:
  return tf.io.gfile.exists(os.path.join(folder, os.path.basename(path)))


def _shrinker(
  source: loading.Source, side: int, is_raw: bool
) -> Callable[[bytes], bytes]:
  """Returns a function from a record to the record with a smaller image."""
  # Grey images stay grey; those of any number of channels become coloured.
  channels = source.builder.info.features["image"].shape[-1] or 3
  parse = tf.function(
    records.parser(source, channels),
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
  )

  def shrink(record: bytes) -> bytes:
    smaller = encode_smaller(parse(record)[0].numpy(), side, is_raw=is_raw)
    if smaller is None:
      return record
    example = tf.train.Example.FromString(record)
    values = example.features.feature
    values["image"].bytes_list.value[0] = smaller
    if pixels.ORIENTATION in values:  # The image is upright now.
      values[pixels.ORIENTATION].int64_list.value[0] = 1
    return example.SerializeToString()

  return shrink


def encode_smaller(
  image: np.ndarray, side: int, *, is_raw: bool
) -> bytes | None:
  """Returns the bytes of an image in a copy; None for those of the original.

  Args:
    image: [H, W, 1 or 3] uint8.
    side: the longest short side, pixels.
    is_raw: whether to return raw pixels instead of a JPEG.
  """
  smaller = _resized(image, side)
  if is_raw:
    return records.to_raw(smaller)
  return None if smaller is image else _to_jpeg(smaller)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
  """Returns an image whose short side is at most `side`."""
  height, width, channels = image.shape
  short = min(height, width)
  if short <= side:
    return image
  size = [max(round(length * side / short), 1) for length in (width, height)]
  picture = PIL.Image.fromarray(image if channels == 3 else image[..., 0])
  smaller = picture.resize(
    (size[0], size[1]),
    PIL.Image.Resampling.BICUBIC,
    reducing_gap=_REDUCING_GAP,
  )
  return np.asarray(smaller).reshape(size[1], size[0], channels)


def _to_jpeg(image: np.ndarray) -> bytes:
  picture = PIL.Image.fromarray(
    image if image.shape[-1] == 3 else image[..., 0]
  )
  file = io.BytesIO()
  picture.save(file, "JPEG", quality=_JPEG_QUALITY)
  return file.getvalue()


def _foretell(
  source: loading.Source,
  files: Sequence[tuple[str, str]],
  shrink: Callable[[bytes], bytes],
  folder: str,
  options: schema.DataConfig,
  tell: Callable[[str], None],
) -> None:
  """Tells how long copying takes and how much it writes.

  Raises:
    UserError: if the disk has less room.
  """
  info = source.builder.info
  lengths = {
    str(path): length
    for split in info.splits.values()
    for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
  }
  count = sum(lengths[path] for _, path in files)
  if not count:
    return
  split, path = files[0]
  sample = tf.data.TFRecordDataset(path).take(_SAMPLE).as_numpy_iterator()
  read = list(diagnosis.explain_errors(sample, source, split))
  shrink(read[0])  # Compiles.
  start = time.monotonic()
  sizes = [len(copy) for _, copy in thread_map(shrink, read, "Sample")]
  seconds = (time.monotonic() - start) / len(read) * count
  size = sum(sizes) / len(sizes) * count
  tell(
    f"Copying {count:,} images of {source.dataset.tfds_name} with short sides of at"
    f" most {options.copy_side} pixels to {folder}: about {size / 1e9:.2g} GB and"
    f" {seconds / 60:.2g} minutes."
  )
  free = shutil.disk_usage(folder).free if "://" not in folder else size
  if size > free:
    raise errors.UserError(
      f"data.copy_side={options.copy_side} needs about {size / 1e9:.2g} GB in"
      f" {folder}, which has {free / 1e9:.2g} GB free; free space, choose another"
      " data.data_dir or a smaller side, or set data.copy_format=jpeg."
    )


def _copy(
  path: str, shrink: Callable[[bytes], bytes], title: str
) -> Iterator[bytes]:
  """Yields the records of a file with smaller images."""
  read = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
  for _, copy in thread_map(shrink, read, f"Copying {title}"):
    yield copy


def _write(copies: Iterator[bytes], folder: str, path: str) -> None:
  """Writes records to the file of a folder that is named like another file."""
  target = os.path.join(folder, os.path.basename(path))
  # Another process may write the same file.
  temporary = f"{target}.incomplete-{os.uname().nodename}-{os.getpid()}"
  try:
    with tf.io.TFRecordWriter(temporary) as writer:
      for record in copies:
        writer.write(record)
    tf.io.gfile.rename(temporary, target, overwrite=True)
  except BaseException:
    if tf.io.gfile.exists(temporary):
      tf.io.gfile.remove(temporary)
    raise


def _describe(
  source: loading.Source, splits: Sequence[str], folder: str
) -> None:
  """Writes the descriptions of a copy, of which `dataset_info.json` is the last."""
  original = str(source.builder.data_dir)
  names = tf.io.gfile.listdir(original)
  for name in names:
    if name.endswith((".json", ".txt")) and name != _DESCRIPTION:
      paths = (os.path.join(place, name) for place in (original, folder))
      tf.io.gfile.copy(*paths, overwrite=True)
  with tf.io.gfile.GFile(os.path.join(original, _DESCRIPTION)) as file:
    description = json.loads(file.read())
  kept = [x for x in description["splits"] if x["name"] in splits]
  for split in kept:
    paths = source.builder.info.splits[split["name"]].filepaths
    sizes = [
      tf.io.gfile.stat(os.path.join(folder, path.name)).length for path in paths
    ]
    split["numBytes"] = str(sum(sizes))
  temporary = os.path.join(folder, f"{_DESCRIPTION}.incomplete-{os.getpid()}")
  with tf.io.gfile.GFile(temporary, "w") as file:
    file.write(json.dumps({**description, "splits": kept}, indent=2))
  tf.io.gfile.rename(
    temporary, os.path.join(folder, _DESCRIPTION), overwrite=True
  )
