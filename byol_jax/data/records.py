"""Locates the records of a split in its files, reads them and parses them."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax.data import loading, pixels


class FileSlice(NamedTuple):
  """Consecutive records of a file.

  Attributes:
    name: path of the file.
    skip: number of records before the first one.
    take: number of records.
  """

  name: str
  skip: int
  take: int


def split_files(
  source: loading.Source, split: str, part: int = 0, parts: int = 1
) -> list[FileSlice]:
  """Returns the records of a split, or of one of its parts, in order.

  Args:
    source: the data set.
    split: tfds split expression.
    part: index of the part, from 0.
    parts: number of parts. Their sizes differ by at most one example.

  Raises:
    UserError: if there is no such split.
  """
  loading.split_info(source, split)  # Raises a readable error first.
  splits = tfds.even_splits(split, parts, drop_remainder=False)
  instructions = source.builder.info.splits[splits[part]].file_instructions
  return [
    FileSlice(file.filename, file.skip, file.take) for file in instructions
  ]


def num_records(files: Sequence[FileSlice]) -> int:
  """Returns the number of records."""
  return sum(file.take for file in files)


def trim(files: Sequence[FileSlice], indices: range) -> list[FileSlice]:
  """Returns the records at consecutive indices of the records of some files."""
  kept, first = [], 0
  for name, skip, take in files:
    begin = max(indices.start - first, 0)
    end = min(indices.stop - first, take)
    if begin < end:
      kept.append(FileSlice(name, skip + begin, end - begin))
    first += take
  return kept


def record_size(source: loading.Source) -> int:
  """Returns the mean size of an undecoded example, bytes; at least 1."""
  info = source.builder.info
  return max(info.dataset_size // info.splits.total_num_examples, 1)


def columns(files: Sequence[FileSlice]) -> tuple[tf.Tensor, ...]:
  """Returns the names, skips and takes of file slices as tensors."""
  return (
    tf.constant([file.name for file in files], tf.string),
    tf.constant([file.skip for file in files], tf.int64),
    tf.constant([file.take for file in files], tf.int64),
  )


def read_slice(
  name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
) -> tf.data.Dataset:
  """Returns the serialized examples of a `FileSlice`.

  Reading fails if the file holds fewer: it may have been cut off between two
  records, which nothing else shows.
  """
  dataset = tf.data.TFRecordDataset(name).skip(skip).take(take)
  return dataset.apply(tf.data.experimental.assert_cardinality(take))


def read_in_order(files: Sequence[FileSlice]) -> tf.data.Dataset:
  """Returns the serialized examples of file slices, one file after another."""
  slices = tf.data.Dataset.from_tensor_slices(columns(files))
  return slices.flat_map(read_slice)


def parser(
  source: loading.Source,
  channels: int = 3,
  *,
  multi_label: bool = False,
  decode_side: int = 0,
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
  """Returns a function from a serialized example to its image and label.

  The function decodes no other feature, of which some data sets have many.

  Args:
    source: the data set.
    channels: of the image: 3, or 1 for grey.
    multi_label: whether to return the classes of a multi-label image. It has
      label -1 otherwise, because the online classifier of pretraining takes one
      class per image.
    decode_side: JPEGs are decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8
      at which the short side keeps so many pixels; 0: at their size.

  Returns:
    A function to `(image, label)`: [H, W, channels] uint8, and an int32 class,
    -1 where unknown; with `multi_label` on a multi-label data set, [classes]
    int32 of 0 and 1.
  """
  features = source.builder.info.features
  label_name = source.dataset.label
  names = ["image", label_name] if source.num_classes else ["image"]
  is_turned = pixels.ORIENTATION in features
  if is_turned:
    names.append(pixels.ORIENTATION)
  features = tfds.features.FeaturesDict(
    {name: features[name] for name in names}
  )
  decoders = {"image": tfds.decode.SkipDecoding()}
  decode = image_decoder(channels, decode_side, is_raw=source.is_raw)

  def parse(record):
    example = features.deserialize_example(record, decoders=decoders)
    image = decode(example["image"])
    if is_turned:
      image = pixels.turn_upright(image, example[pixels.ORIENTATION])
    image = tf.ensure_shape(image, [None, None, channels])
    label = tf.cast(example.get(label_name, -1), tf.int32)
    if not source.is_multi_label:
      return image, label
    if not multi_label:
      return image, tf.constant(-1)
    one_hot = tf.one_hot(label, source.num_classes, dtype=tf.int32)
    # The maximum over no class at all is negative.
    return image, tf.maximum(tf.reduce_max(one_hot, axis=0), 0)

  return parse


def image_decoder(
  channels: int, decode_side: int = 0, *, is_raw: bool = False
) -> Callable[[tf.Tensor], tf.Tensor]:
  """Returns a function from the bytes of an image to [H, W, channels] uint8.

  Args:
    channels: 3, or 1 for grey.
    decode_side: see `parser`.
    is_raw: whether the bytes are of `to_raw`.
  """
  if is_raw:
    return functools.partial(_from_raw, channels=channels)
  if decode_side:
    return functools.partial(
      _decode_reduced, channels=channels, side=decode_side
    )
  return functools.partial(_decode_image, channels=channels)


def to_raw(image: np.ndarray) -> bytes:
  """Returns the bytes of an image [H, W, C] uint8 as copies of data sets store it."""
  return np.array(image.shape, "<i4").tobytes() + image.tobytes()


def _from_raw(data: tf.Tensor, channels: int) -> tf.Tensor:
  """Returns the image that `to_raw` has stored, with 1 or 3 channels."""
  shape = tf.io.decode_raw(tf.strings.substr(data, 0, 12), tf.int32)
  image = tf.reshape(
    tf.io.decode_raw(tf.strings.substr(data, 12, -1), tf.uint8), shape
  )
  if channels == 3:  # Of grey images, the channel is repeated.
    return tf.broadcast_to(image, [shape[0], shape[1], 3])
  return tf.cond(
    shape[2] == 1, lambda: image, lambda: tf.image.rgb_to_grayscale(image)
  )


def _decode_image(data: tf.Tensor, channels: int) -> tf.Tensor:
  """Returns the image of an encoded file."""
  return tf.io.decode_image(data, channels=channels, expand_animations=False)


def _decode_reduced(data: tf.Tensor, channels: int, side: int) -> tf.Tensor:
  """Returns a JPEG at a scale at which its short side keeps `side` pixels."""

  def decode_at(ratio: int) -> tf.Tensor:
    return tf.io.decode_jpeg(data, channels=channels, ratio=ratio)

  def reduced() -> tf.Tensor:
    short = tf.reduce_min(tf.io.extract_jpeg_shape(data)[:2])
    halvings = tf.reduce_sum(
      tf.cast(short >= [2 * side, 4 * side, 8 * side], tf.int32)
    )
    return tf.switch_case(
      halvings, [functools.partial(decode_at, 2**i) for i in range(4)]
    )

  return tf.cond(
    tf.io.is_jpeg(data), reduced, lambda: _decode_image(data, channels)
  )
