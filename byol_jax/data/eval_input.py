"""Makes batches for evaluations: each example once, or endless random crops."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data import (
  crops,
  diagnosis,
  loading,
  records,
  stream,
  train_input,
)
from byol_jax.data.source import (
  WHOLE_BATCH,
  CentreCrop,
  Pairs,
  ProcessSlice,
  RandomCrop,
)
from byol_jax.data.tensorflow_setup import without_autograph


@without_autograph
def eval_batches(
  source: loading.Source,
  split: str,
  crop: CentreCrop,
  *,
  batch_size: int,
  indices: range | None = None,
  process: ProcessSlice = WHOLE_BATCH,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns each example of a split once, in the order of the files.

  Args:
    source: the data set.
    split: tfds split expression.
    crop: how images are cropped.
    batch_size: examples in a batch of one process; the last may hold fewer.
    indices: examples of the split to return; by default all.
    process: several processes get batches in turn, and all the same number of
      full batches: the last batches are padded by the first example.

  Returns:
    An iterator of `{"image": [b, H, W, channels] float32 in [0, 1], "label":
    [b] int32, -1 where unknown}`. Multi-label data sets have labels
    [b, classes] of 0 and 1.

  Raises:
    UserError: if there is no such split; from the iterator, if a file cannot
      be read.
  """
  parse = records.parser(source, crop.channels, multi_label=True)

  def example(unused_position, record):
    image, label = parse(record)
    image = crops.centre_crop(image, crop.image_shape, crop.fraction)
    return {"image": image[..., : crop.channels], "label": label}

  files = records.split_files(source, split)
  if indices is not None:
    files = records.trim(files, indices)
  examples = records.read_in_order(files)
  turn = batch_size * process.count
  if process.count > 1:
    examples = stream.pad_to_multiple(
      examples, records.num_records(files), turn
    )
  slices = stream.take_slices(examples, turn, process)
  batches = slices.map(example, tf.data.AUTOTUNE).batch(batch_size)
  return diagnosis.explain_errors(stream.iterate(batches), source, split)


@without_autograph
def labelled_batches(
  source: loading.Source,
  split: str,
  indices: range | np.ndarray,
  crop: RandomCrop,
  options: schema.DataConfig,
  *,
  batch_size: int,
  seed: int,
  process: ProcessSlice = WHOLE_BATCH,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns endless shuffled batches of random crops, to train classifiers on.

  Args:
    source: the data set.
    split: tfds split expression.
    indices: examples of the split to use, by the order of the files. Examples
      that are not a range are held in memory, undecoded.
    crop: how images are cropped.
    options: how the images are read.
    batch_size: examples in a batch over all processes; may exceed the number of
      indices.
    seed: decides order and crops.
    process: which slice of each batch to return; by default all of it.

  Returns:
    An iterator of `{"image": [b, H, W, channels] float32 in [0, 1], "label"}`
    with labels as `eval_batches` returns them.

  Raises:
    UserError: if there is no such split; from the iterator, if a file cannot
      be read.
  """
  parse = records.parser(source, crop.channels, multi_label=True)

  def example(position, record):
    image, label = parse(record)
    image = _random_crop(image, crop, tf.stack([seed, position]))
    return {"image": image, "label": label}

  examples = _shuffled_examples(source, split, indices, options, seed)
  slices = stream.take_slices(examples, batch_size, process)
  batches = slices.map(example, stream.num_threads(options)).batch(
    len(process.indices(batch_size))
  )
  return diagnosis.explain_errors(
    stream.iterate(batches, options.prefetch), source, split
  )


@without_autograph
def many_views(
  source: loading.Source,
  split: str,
  views: spec.Views,
  options: schema.DataConfig,
  *,
  pairs: Pairs,
  batch_size: int,
  seed: int,
  process: ProcessSlice = WHOLE_BATCH,
) -> Iterator[dict[str, Any]]:
  """Returns several pairs of views of each of the first images of a split.

  Args:
    source: the data set.
    split: tfds split expression.
    views: specification of the views of each image.
    options: how the images are read.
    pairs: how many, of how many images; those of an image follow one another.
    batch_size: pairs in a batch of one process.
    seed: with the position in the stream of pairs, decides the views.
    process: several processes get batches in turn.

  Returns:
    An endless iterator of batches as `train_input.train_batches` yields them; after the
    last image comes the first again, with other views.

  Raises:
    UserError: if there is no such split; from the iterator, if a file cannot be read.
  """
  files = records.trim(records.split_files(source, split), range(pairs.images))
  repeated = records.read_in_order(files).flat_map(
    lambda record: tf.data.Dataset.from_tensors(record).repeat(pairs.each)
  )
  batches = train_input.augment(
    stream.take_slices(repeated.repeat(), batch_size * process.count, process),
    records.parser(source, views.channels, decode_side=options.decode_side),
    views,
    batch_size,
    seed,
    stream.num_threads(options),
  )
  return diagnosis.explain_errors(
    stream.iterate(batches, options.prefetch), source, split
  )


def _random_crop(
  image: tf.Tensor, crop: RandomCrop, seed: tf.Tensor
) -> tf.Tensor:
  """Returns a random crop in [0, 1], flipped at random."""
  u = tf.random.stateless_uniform([1, len(spec.CROP_NUMBERS) + 1], seed)
  (image,) = crops.random_crops(
    image, u[:, :-1], [crop.region], crop.image_shape
  )
  image = tf.where(u[0, -1] < crop.region.flip_prob, image[:, ::-1], image)
  return tf.clip_by_value(image[..., : crop.channels] / 255, 0.0, 1.0)


def _shuffled_examples(
  source: loading.Source,
  split: str,
  indices: range | np.ndarray,
  options: schema.DataConfig,
  seed: int,
) -> tf.data.Dataset:
  """Returns endless epochs of some examples of a split, as records."""
  # Pretraining has -1 here, see `stream.part_stream`.
  seeds = tf.stack([tf.cast(seed, tf.int64), -2])
  files = records.split_files(source, split)
  if not isinstance(indices, range):
    examples = _select(files, indices)
    return stream.permute_epochs(stream.load(source, split, examples), seeds)
  files = records.trim(files, indices)
  if not stream.is_cached(source, options, len(indices)):
    return stream.shuffle_epochs(source, options, files, seeds)
  examples = records.read_in_order(files)
  return stream.permute_epochs(stream.load(source, split, examples), seeds)


def _select(
  files: list[records.FileSlice], indices: np.ndarray
) -> tf.data.Dataset:
  """Returns the records at the given indices, in the order of the files."""
  is_chosen = np.zeros(records.num_records(files), bool)
  is_chosen[indices] = True
  numbered = tf.data.Dataset.zip(
    tf.data.Dataset.from_tensor_slices(is_chosen), records.read_in_order(files)
  )
  chosen = numbered.filter(lambda is_chosen, unused_record: is_chosen)
  return chosen.map(lambda unused_is_chosen, record: record)
