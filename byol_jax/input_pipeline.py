"""Batches of augmented or centred images, as NumPy arrays, from a data set.

Training reads one endless global stream: the shuffled order of epoch 0, then
that of epoch 1, and so on. Position i of it is a function of the seed alone,
and so are its two views; batches, resumption and processes only cut it up.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import augment, datasets, errors

_CYCLE = 16  # Shards read at a time, one record from each in turn.


def train_batches(
  source: datasets.Source,
  *,
  batch_size: int,
  image_size: int,
  view1: augment.View,
  view2: augment.View,
  seed: int,
  shuffle_buffer: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns the endless batches of the pretraining split from a step on.

  Batch `step` holds positions [step * batch_size, (step + 1) * batch_size) of
  the stream, so it may straddle two epochs. Starting late costs at most one
  epoch of reading without decoding.

  Args:
    source: what `datasets.load` returned.
    batch_size: examples in a batch over all processes.
    image_size: side of a view, pixels.
    view1: how the first view is drawn.
    view2: how the second view is drawn.
    seed: decides order and views.
    shuffle_buffer: encoded examples held and drawn from.
    start_step: the first batch to return.
    process_index: which slice of each batch to return, from 0.
    process_count: the number of slices.

  Returns:
    An iterator of `{"view1", "view2": [B / process_count, S, S, 3] float32 in
    [0, 1], "label": [B / process_count] int32, -1 where unknown}`.

  Raises:
    UserError: if the batch is larger than the split, or not a multiple of
      `process_count`.
  """
  split = source.dataset.pretrain
  size = datasets.num_examples(source, split)
  if size < batch_size:
    raise errors.UserError(
      f"batch_size={batch_size} is more than the {size} examples of split"
      f" {split!r} of {source.dataset.tfds_name}; lower it to {size} or less."
    )
  if batch_size % process_count:
    raise errors.UserError(
      f"batch_size={batch_size} must be a multiple of the number of processes,"
      f" {process_count}; try {batch_size - batch_size % process_count}"
      f" or {batch_size - batch_size % process_count + process_count}."
    )
  local_size = batch_size // process_count
  parse = _parser(source)

  def is_local(index, _):
    return index % batch_size // local_size == process_index

  def example(index, record):
    image, label = parse(record)
    views = augment.two_views(
      image, view1, view2, image_size, tf.stack([seed, index])
    )
    return {"view1": views[0], "view2": views[1], "label": label}

  dataset = _stream(source, seed, shuffle_buffer, start_step * batch_size)
  dataset = dataset.filter(is_local).map(example, tf.data.AUTOTUNE)
  return _batches(dataset, local_size)


def first_views(
  source: datasets.Source,
  count: int,
  *,
  image_size: int,
  view1: augment.View,
  view2: augment.View,
  seed: int,
  shuffle_buffer: int,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns what the first step saw of its first images, for people to see.

  Args:
    source: see `train_batches`, as are the others.
    count: how many images.
    image_size: side of a view, pixels.
    view1: how the first view is drawn.
    view2: how the second view is drawn.
    seed: decides order and views.
    shuffle_buffer: encoded examples held and drawn from.

  Returns:
    (original [H, W, 3] uint8, view 1, view 2 [S, S, 3] float32 in [0, 1]) of
    each.
  """
  parse = _parser(source)

  def example(index, record):
    image, _ = parse(record)
    seeds = tf.stack([seed, index])
    return image, *augment.two_views(image, view1, view2, image_size, seeds)

  stream = _stream(source, seed, shuffle_buffer, 0).take(count)
  return list(stream.map(example).as_numpy_iterator())


def eval_batches(
  source: datasets.Source,
  split: str,
  *,
  batch_size: int,
  image_size: int,
  crop: float,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns every example of a split once, in the order of the files.

  Args:
    source: what `datasets.load` returned.
    split: tfds split expression.
    batch_size: examples in a batch of this process; the last may hold fewer.
    image_size: side of an image, pixels.
    crop: side of the central square that is seen, as a share of the short side.
    process_index: which examples to return: this one and every
      `process_count`-th after it.
    process_count: the number of such parts.

  Returns:
    An iterator of `{"image": [b, S, S, 3] float32 in [0, 1], "label": [b]
    int32, -1 where unknown}`.

  Raises:
    UserError: if the split is unknown.
  """
  parse = _parser(source)

  def example(record):
    image, label = parse(record)
    image = augment.eval_image(image, image_size, crop)
    return {"image": image, "label": label}

  files = tf.data.Dataset.from_tensor_slices(_files(source, split))
  dataset = files.flat_map(_records).shard(process_count, process_index)
  return _batches(dataset.map(example, tf.data.AUTOTUNE), batch_size)


def _stream(
  source: datasets.Source, seed: int, shuffle_buffer: int, start: int
) -> tf.data.Dataset:
  """Returns positions and records of the global stream, from a position on."""
  split = source.dataset.pretrain
  files = _files(source, split)
  size = datasets.num_examples(source, split)
  first_epoch, start_in_epoch = divmod(start, size)

  def epoch_records(epoch):
    return _shuffled(files, shuffle_buffer, seed, epoch)

  dataset = tf.data.Dataset.range(first_epoch, tf.int64.max)
  return dataset.flat_map(epoch_records).skip(start_in_epoch).enumerate(start)


def _files(
  source: datasets.Source, split: str
) -> tuple[list[str], list[int], list[int]]:
  """Returns the names of a split's files, records to skip and to take."""
  parts = datasets.split_info(source, split).file_instructions
  return (
    [part.filename for part in parts],
    [part.skip for part in parts],
    [part.take for part in parts],
  )


def _records(
  name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
) -> tf.data.Dataset:
  """Returns one file's part of a split, as serialized examples."""
  skip, take = tf.cast(skip, tf.int64), tf.cast(take, tf.int64)
  return tf.data.TFRecordDataset(name).skip(skip).take(take)


def _shuffled(
  files: tuple, shuffle_buffer: int, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
  """Returns all records in the order that belongs to a seed and an epoch."""
  # Negative, so no example's views are drawn from the same pair.
  seed = tf.stack([tf.cast(seed, tf.int64), -1 - epoch])
  file_seed, record_seed = tf.unstack(tf.random.split(seed, 2))
  order = tf.random.experimental.stateless_shuffle(
    tf.range(len(files[0])), file_seed
  )
  dataset = tf.data.Dataset.from_tensor_slices(
    tuple(tf.gather(column, order) for column in files)
  )
  dataset = dataset.interleave(
    _records, cycle_length=_CYCLE, num_parallel_calls=tf.data.AUTOTUNE
  )
  return dataset.shuffle(
    shuffle_buffer, seed=record_seed[0], reshuffle_each_iteration=False
  )


def _parser(source: datasets.Source) -> Callable:
  """Returns a function from a serialized example to its image and label.

  The image is [H, W, 3] uint8, the label an int32, -1 where there is none.
  Other features, which some data sets have many of, are not looked at.
  """
  features = source.builder.info.features
  features = tfds.features.FeaturesDict(
    {name: features[name] for name in ("image", "label") if name in features}
  )
  decoders = {"image": tfds.decode.SkipDecoding()}

  def parse(record):
    example = features.deserialize_example(record, decoders=decoders)
    image = tf.io.decode_image(
      example["image"], channels=3, expand_animations=False
    )
    label = tf.cast(example.get("label", -1), tf.int32)
    return tf.ensure_shape(image, [None, None, 3]), label

  return parse


def _batches(
  dataset: tf.data.Dataset, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Returns batches of a data set, a few of them made ahead."""
  dataset = dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
  return dataset.as_numpy_iterator()
