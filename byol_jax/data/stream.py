"""Makes shuffled streams of records and divides them among processes."""

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from byol_jax.config import schema
from byol_jax.data import diagnosis, loading, records
from byol_jax.data.records import FileSlice
from byol_jax.data.source import ProcessSlice

# Files that are read at a time, one record from each in turn.
_INTERLEAVED_FILES = 16

# Undecoded examples that are held beyond the shuffle buffer, as a fraction of
# it. Training reads them while the next epoch's buffer fills, which takes much
# less time than training on them.
_PREFETCHED_FRACTION = 1 / 4


# Examples that are read into memory by one call.
_LOADED_TOGETHER = 1024


def part_stream(
  source: loading.Source,
  options: schema.DataConfig,
  part: int,
  seed: int,
  start: int,
) -> tf.data.Dataset:
  """Returns the endless shuffled records of a part of the pretraining split.

  Args:
    source: the data set.
    options: how records are read.
    part: index of the part, below `options.parts`.
    seed: with the part, decides the order.
    start: position in the part's stream to start from.
  """
  split = source.dataset.pretrain
  files = records.split_files(source, split, part, options.parts)
  seeds = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), -1]), part)
  if is_cached(source, options, loading.num_examples(source, split)):
    examples = load(source, split, records.read_in_order(files))
    return permute_epochs(examples, seeds, start)
  return shuffle_epochs(source, options, files, seeds, start)


def is_cached(
  source: loading.Source, options: schema.DataConfig, count: int
) -> bool:
  """Returns whether `count` undecoded examples are to be held in memory.

  Images on the device have the order of those that are held in memory.
  """
  size = records.record_size(source) * count
  return options.placement == "device" or size <= options.cache_bytes


def shuffle_epochs(
  source: loading.Source,
  options: schema.DataConfig,
  files: Sequence[FileSlice],
  seeds: tf.Tensor,
  start: int = 0,
) -> tf.data.Dataset:
  """Returns endless epochs of records, shuffled as they are read.

  Args:
    source: the data set.
    options: how large the shuffle buffer is.
    files: the records of an epoch.
    seeds: [2] int64; with the epoch, decide the order.
    start: position in the stream to start from. It costs at most one epoch of
      reading.
  """
  most = options.shuffle_bytes // records.record_size(source)
  buffer = max(min(options.shuffle_buffer, most), 1)
  first_epoch, start_in_epoch = divmod(start, records.num_records(files))

  def read_epoch(epoch):
    return _shuffle(files, buffer, tf.random.fold_in(seeds, epoch))

  epochs = tf.data.Dataset.range(first_epoch, tf.int64.max)
  stream = epochs.flat_map(read_epoch).skip(start_in_epoch)
  return stream.prefetch(max(int(buffer * _PREFETCHED_FRACTION), 1))


def _shuffle(
  files: Sequence[FileSlice], buffer: int, seeds: tf.Tensor
) -> tf.data.Dataset:
  """Returns one epoch of records in the order that belongs to the seeds."""
  file_seed, record_seed = tf.unstack(tf.random.split(seeds, 2))
  order = tf.random.experimental.stateless_shuffle(
    tf.range(len(files)), file_seed
  )
  columns = records.columns(files)
  dataset = tf.data.Dataset.from_tensor_slices(
    tuple(tf.gather(column, order) for column in columns)
  )
  dataset = dataset.interleave(
    records.read_slice,
    cycle_length=_INTERLEAVED_FILES,
    num_parallel_calls=tf.data.AUTOTUNE,
  )
  return dataset.shuffle(
    buffer, seed=record_seed[0], reshuffle_each_iteration=False
  )


def load(
  source: loading.Source, split: str, examples: tf.data.Dataset
) -> tf.Tensor:
  """Returns serialized examples of a split as one tensor in memory.

  Raises:
    UserError: if a file cannot be read.
  """
  # Many at a time, as each step from TensorFlow to Python has a cost.
  chunks = iter(examples.batch(_LOADED_TOGETHER))
  return tf.concat([*diagnosis.explain_errors(chunks, source, split)], axis=0)


def permute_epochs(
  examples: tf.Tensor, seeds: tf.Tensor, start: int = 0
) -> tf.data.Dataset:
  """Returns endless epochs of examples in memory, each a random permutation.

  Args:
    examples: [N] string.
    seeds: [2] int64; with the epoch, decide the order.
    start: position in the stream to start from.
  """
  size = len(examples)

  def example(position):
    epoch_seeds = tf.random.fold_in(seeds, position // size)
    i = tf.random.experimental.index_shuffle(
      position % size, epoch_seeds, size - 1
    )
    return examples[i]

  return tf.data.Dataset.range(start, tf.int64.max).map(example)


def interleave(
  streams: Sequence[tf.data.Dataset], length: int
) -> tf.data.Dataset:
  """Returns one stream that takes `length` elements of each stream in turn."""
  if len(streams) == 1:
    return streams[0]
  turns = tf.data.Dataset.range(len(streams) * length).repeat()
  return tf.data.Dataset.choose_from_datasets(
    streams, turns.map(lambda i: i // length)
  )


def take_slices(
  stream: tf.data.Dataset, batch_size: int, process: ProcessSlice
) -> tf.data.Dataset:
  """Returns the elements that one process takes of every batch.

  Args:
    stream: of elements whose batches are consecutive.
    batch_size: elements in a batch over all processes.
    process: which slice to take.

  Returns:
    A data set of `(position in the stream, element)`.
  """
  numbered = stream.enumerate()
  if process.count == 1:
    return numbered
  indices = process.indices(batch_size)

  def is_in_slice(position, unused_element):
    index = position % batch_size
    return (index >= indices.start) & (index < indices.stop)

  return numbered.filter(is_in_slice)


def pad_to_multiple(
  stream: tf.data.Dataset, count: int, multiple: int
) -> tf.data.Dataset:
  """Returns a stream of `count` elements, padded by its first to a multiple."""
  return stream.concatenate(stream.take(1).repeat(-count % multiple))


def num_threads(options: schema.DataConfig) -> int:
  """Returns how many images are processed at a time."""
  return options.threads or os.cpu_count() or 1


def iterate(dataset: tf.data.Dataset, prefetch: int = 0) -> Iterator[Any]:
  """Yields the elements of a data set as NumPy arrays, some made ahead.

  Args:
    dataset: of batches.
    prefetch: elements that are made ahead; 0: tf.data decides.
  """
  keep_freed_memory()
  return dataset.prefetch(prefetch or tf.data.AUTOTUNE).as_numpy_iterator()


@functools.cache
def keep_freed_memory() -> None:
  """Makes glibc reuse large buffers instead of asking for fresh ones.

  The setting is the process's, so calls after the first do nothing. The system
  clears fresh memory page by page, which on virtual machines takes a quarter of
  the time of all augmentations (measured under Firecracker).
  """
  with contextlib.suppress(OSError, AttributeError):  # Another C library.
    libc = ctypes.CDLL("libc.so.6")
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
      libc.mallopt(option, 2**30)
