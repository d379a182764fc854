"""Batches of augmented or centred images, as NumPy arrays, from a data set.

Training reads one endless global stream: the shuffled order of epoch 0, then
that of epoch 1, and so on. Position i of it is a function of the seed alone,
and so are its two views; batches, resumption and processes only cut it up.

Where several processes read, each reads files of its own: the stream is woven
of `Reading.parts` streams, each of its own part of the split and shuffled by
itself, which lie side by side in every batch. Where the parts do not divide by
the processes, as after a restart on more of them, each process reads all of them
and makes views of its slice alone.
"""

import contextlib
import ctypes
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.augment import spec
from byol_jax.data import (
  crops,
  host_ops,
  loading,
  registry,
  sampling,
  tfds_store,
)

_CYCLE = 16  # Shards read at a time, one record from each in turn.

# Pixels of views that are finished by one call: a call has its price, which
# many small images share, and large ones should stay in a core's cache (measured
# at 224 and 32 pixels).
_CHUNK_PIXELS = 2**16

# Of the shuffle buffer, undecoded examples that are held beyond it: they last
# while the next epoch's buffer fills, which is faster than training by far.
_AHEAD = 1 / 4

# Images from which the statistics of an unknown data set are taken: the third
# decimal settles at about a thousand.
_MEASURED = 1000


# Of a split: the names of its files, records to skip, and to take of each.
Files = tuple[list[str], list[int], list[int]]


class Reading(NamedTuple):
  """How records get into memory; changes speed and order, no example.

  Attributes:
    shuffle_buffer: undecoded examples that are held and drawn from.
    shuffle_bytes: and their size at most.
    cache_bytes: a split whose undecoded examples take no more is read once,
      held in memory and shuffled perfectly.
    parts: of the split, read independently; best a multiple of the processes.
    threads: that decode and augment, 0 for one a core.
    prefetch: batches made ahead, 0 for as many as tf.data finds useful.
  """

  shuffle_buffer: int
  shuffle_bytes: int = 2**31
  cache_bytes: int = 0
  parts: int = 1
  threads: int = 0
  prefetch: int = 0


def train_batches(
  source: loading.Source,
  views: spec.Views,
  reading: Reading,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, Any]]:
  """Returns the endless batches of the pretraining split from a step on.

  Batch `step` holds positions [step * batch_size, (step + 1) * batch_size) of
  the stream, so it may straddle two epochs. Starting late costs at most one
  epoch of reading without decoding.

  Args:
    source: what `datasets.load` returned.
    views: what is made of each image.
    reading: how the images are read.
    batch_size: examples in a batch over all processes.
    seed: decides order and views.
    start_step: the first batch to return.
    process_index: which slice of each batch to return, from 0.
    process_count: the number of slices.

  Returns:
    An iterator of `{"view1", "view2": [B / process_count, S, S, channels]
    float32 in [0, 1], "label": [B / process_count] int32, -1 where unknown}`.
    Placed on the device, views are uint8 crops, beside their
    `AugmentParams` in `"params1"` and `"params2"`.

  Raises:
    UserError: if the batch is larger than the split, or cannot be divided; from
      the iterator, if a file cannot be read.
  """
  split = source.dataset.pretrain
  _check_batch(source, batch_size, reading.parts, process_count)
  part_size, local = batch_size // reading.parts, batch_size // process_count
  parts_each, left = divmod(reading.parts, process_count)
  parts = range(process_index * parts_each, (process_index + 1) * parts_each)
  stream = _woven(
    [
      _part_stream(source, reading, part, seed, start_step * part_size)
      for part in (range(reading.parts) if left else parts)
    ],
    part_size,
  )

  def place(i, record):
    """The position in the global stream of what this process reads i-th."""
    step = i // local + start_step
    return step * batch_size + process_index * local + i % local, record

  if left:
    slices = _slices(stream, batch_size, process_index, process_count)
    stream = slices.map(lambda i, record: (start_step * batch_size + i, record))
  else:
    stream = stream.enumerate().map(place)
  batches = augmented(
    stream,
    _parser(source, views.channels),
    views,
    local,
    seed,
    reading.threads,
  )
  return _guarded(_iterate(batches, reading.prefetch), source, split)


def first_views(
  source: loading.Source,
  views: spec.Views,
  reading: Reading,
  *,
  count: int,
  seed: int,
) -> tuple[list[np.ndarray], dict[str, Any]]:
  """Returns what the first step saw of its first images, for people to see.

  Args:
    source: see `train_batches`, as are the others.
    views: what is made of each image.
    reading: how the images are read.
    count: how many images.
    seed: decides order and views.

  Returns:
    The originals, [H, W, channels] uint8 each, and a batch of their views.
  """
  parse = _parser(source, views.channels)
  stream = _part_stream(source, reading, 0, seed, 0)
  originals = stream.take(count).map(lambda record: parse(record)[0])
  batches = augmented(stream.enumerate(), parse, views, count, seed).take(1)
  guarded = _guarded(
    itertools.chain(originals.as_numpy_iterator(), batches.as_numpy_iterator()),
    source,
    source.dataset.pretrain,
  )
  *images, batch = guarded
  return images, batch


def eval_batches(
  source: loading.Source,
  split: str,
  *,
  batch_size: int,
  image_size: int,
  crop: float,
  channels: int = 3,
  places: range | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns every example of a split once, in the order of the files.

  Args:
    source: what `datasets.load` returned.
    split: tfds split expression.
    batch_size: examples in a batch of each process; the last may hold fewer.
    image_size: side of an image, pixels.
    crop: side of the central square that is seen, as a share of the short side.
    channels: 3, or 1 for grey images.
    places: only these of the split, by their order.
    process_index: which batch of `process_count` in turn to return, from 0.
    process_count: of the processes. Of several, all get as many batches, the last
      of which are filled up by the first example.

  Returns:
    An iterator of `{"image": [b, S, S, channels] float32 in [0, 1], "label":
    [b] int32, -1 where unknown}`; where an image may be of several classes,
    labels are [b, classes] of 0 and 1.

  Raises:
    UserError: if the split is unknown; from the iterator, if a file cannot be
      read.
  """
  parse = _parser(source, channels, several=True)

  def example(record):
    image, label = parse(record)
    image = crops.centre_crop(image, image_size, crop)
    return {"image": image[..., :channels], "label": label}

  files = _files(source, split)
  if places is not None:
    files = _trimmed(files, places)
  records = _in_order(files)
  turn = batch_size * process_count
  if process_count > 1:
    fill = -sum(files[2]) % turn
    records = records.concatenate(records.take(1).repeat(fill))
  slices = _slices(records, turn, process_index, process_count)
  examples = slices.map(lambda _, record: example(record), tf.data.AUTOTUNE)
  dataset = examples.batch(batch_size)
  return _guarded(_iterate(dataset), source, split)


def labelled_batches(
  source: loading.Source,
  split: str,
  places: range | np.ndarray,
  view: spec.Crop,
  reading: Reading,
  *,
  batch_size: int,
  image_size: int,
  channels: int = 3,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
  """Returns endless shuffled batches of random crops, to train classifiers on.

  Args:
    source: what `datasets.load` returned.
    split: tfds split expression.
    places: which of its examples, by their order in the files. Any but a range
      are held in memory, undecoded.
    view: how crops are drawn, and how often they are flipped.
    reading: how the images are read.
    batch_size: examples in a batch over all processes; may be more than there
      are.
    image_size: side of an image, pixels.
    channels: 3, or 1 for grey images.
    seed: decides order and crops.
    process_index: which slice of each batch to return, from 0.
    process_count: the number of slices, equal but for one example.

  Returns:
    An iterator of `{"image": [b, S, S, channels] float32 in [0, 1], "label":
    [b] int32}`, labels as `eval_batches` returns them.

  Raises:
    UserError: if the split is unknown; from the iterator, if a file cannot be
      read.
  """
  parse = _parser(source, channels, several=True)
  seeds = tf.stack([tf.cast(seed, tf.int64), -2])
  files = _files(source, split)
  if isinstance(places, range):
    files = _trimmed(files, places)
  is_small = _record_size(source) * len(places) <= reading.cache_bytes
  if isinstance(places, range) and not is_small:
    records = _streamed(source, reading, files, seeds, 0)
  else:
    chosen = _in_order(files)
    if not isinstance(places, range):
      keep = np.zeros(sum(files[2]), bool)
      keep[places] = True
      numbered = tf.data.Dataset.zip(
        tf.data.Dataset.from_tensor_slices(keep), chosen
      )
      chosen = numbered.filter(lambda kept, _: kept).map(lambda _, r: r)
    records = _permuted(_in_memory(source, split, chosen), seeds, 0)

  def example(position, record):
    image, label = parse(record)
    u = tf.random.stateless_uniform([1, 5], tf.stack([seed, position]))
    (image,) = crops.random_crops(image, u[:, :4], [view], image_size)
    image = tf.where(u[0, 4] < view.flip_prob, image[:, ::-1], image)
    image = tf.clip_by_value(image[..., :channels] / 255, 0.0, 1.0)
    return {"image": image, "label": label}

  threads = reading.threads or os.cpu_count() or 1
  slices = _slices(records, batch_size, process_index, process_count)
  batches = slices.map(example, threads).batch(
    _slice_size(batch_size, process_index, process_count)
  )
  return _guarded(_iterate(batches, reading.prefetch), source, split)


def example_ids(source: loading.Source, split: str) -> list[str]:
  """Returns what identifies each example of a split, in the order of the files.

  The file's name where the data set holds it, as those of folders do; else the
  name of the record file and the place in it, as tfds makes its ids.

  Raises:
    UserError: if the split is unknown, or a file cannot be read.
  """
  files = _files(source, split)
  features = source.builder.info.features
  names = [name for name in ("file", "file_name") if name in features]
  if names:
    feature = tfds.features.FeaturesDict({names[0]: features[names[0]]})
    stored = _in_order(files).map(
      lambda record: feature.deserialize_example(record)[names[0]]
    )
    reader = _guarded(stored.as_numpy_iterator(), source, split)
    return [name.decode() for name in reader]
  return [
    f"{os.path.basename(name)}__{skip + i}"
    for name, skip, take in zip(*files, strict=True)
    for i in range(take)
  ]


def identity(source: loading.Source, split: str) -> list[list[Any]]:
  """Returns what changes when the examples of a split do, for JSON.

  Of each file: its name, the records that are skipped and taken, its size and
  when it was written. `UserError` if the split is unknown.
  """
  found = []
  for name, skip, take in zip(*_files(source, split), strict=True):
    about = tf.io.gfile.stat(name)
    found.append([name, skip, take, about.length, about.mtime_nsec])
  return found


def num_shared(source: loading.Source, split: str, other: str) -> int:
  """Returns how many examples two split expressions have in common.

  Raises:
    UserError: if one of them is unknown.
  """
  first, second = (
    zip(*_files(source, expression), strict=True)
    for expression in (split, other)
  )
  taken = [*second]
  return sum(
    max(min(skip + take, skip2 + take2) - max(skip, skip2), 0)
    for name, skip, take in first
    for name2, skip2, take2 in taken
    if name == name2
  )


def _trimmed(files: Files, places: range) -> Files:
  """The files' records from one place on and up to another."""
  names, skips, takes = [], [], []
  first = 0
  for name, skip, take in zip(*files, strict=True):
    begin = max(places.start - first, 0)
    end = min(places.stop - first, take)
    if begin < end:
      names.append(name)
      skips.append(skip + begin)
      takes.append(end - begin)
    first += take
  return names, skips, takes


def measure(source: loading.Source) -> registry.Statistics:
  """Returns statistics of the first images of the pretraining split."""
  parse = _parser(source)
  sums, count, sides = np.zeros((2, 3)), 0, []
  records = _in_order(_files(source, source.dataset.pretrain))
  images = records.take(_MEASURED).map(
    lambda record: parse(record)[0], tf.data.AUTOTUNE
  )
  for image in _guarded(
    images.as_numpy_iterator(), source, source.dataset.pretrain
  ):
    pixels = image / 255
    sums += pixels.mean((0, 1)), (pixels**2).mean((0, 1))
    count += 1
    sides.append(min(image.shape[:2]))
  mean, square = sums / count
  std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)), 1e-3)
  return registry.Statistics(
    tuple(mean.round(4).tolist()),
    tuple(std.round(4).tolist()),
    int(np.median(sides)),
  )


def _check_batch(
  source: loading.Source, batch_size: int, parts: int, process_count: int
) -> None:
  """Raises `UserError` if the stream cannot be cut into such batches."""
  split = source.dataset.pretrain
  size = loading.num_examples(source, split)
  if size < batch_size:
    raise errors.UserError(
      f"batch_size={batch_size} is more than the {size} examples of split"
      f" {split!r} of {source.dataset.tfds_name}; lower it to {size} or less."
    )
  for name, divisor in {
    f"data.parts={parts}": parts,
    f"the {process_count} processes": process_count,
  }.items():
    if batch_size % divisor:
      lower = batch_size - batch_size % divisor
      raise errors.UserError(
        f"batch_size={batch_size} must be a multiple of {name}; try"
        f" {lower or divisor} or {lower + divisor}."
      )


def augmented(
  stream: tf.data.Dataset,
  parse: Callable,
  views: spec.Views,
  batch_size: int,
  seed: int,
  threads: int = 0,
) -> tf.data.Dataset:
  """Turns positions and records into batches of views.

  Args:
    stream: of positions in the global stream, and records.
    parse: from a record to an image, [H, W, 1 or 3] uint8, and its label.
    views: what is made of each image.
    batch_size: images in a batch.
    seed: with the position, decides everything random.
    threads: images that are made at a time, 0 for one a core.

  Returns:
    Batches as `train_batches` returns them.
  """
  enabled = spec.enabled_ops(views.view1, views.view2)

  @tf.function(jit_compile=True)
  def apply(crops, params):
    return host_ops.apply(crops, params, enabled)[..., : views.channels]

  def crop(position, record):
    image, label = parse(record)
    seeds = tf.stack([seed, position])
    return *crops.two_random_crops(image, views, seeds), label

  def complete(crop1, crop2, u1, u2, label):
    params1 = sampling.sample_params(u1, views.view1, enabled)
    params2 = sampling.sample_params(u2, views.view2, enabled)
    if views.placement == "host":
      view1, view2 = apply(crop1, params1), apply(crop2, params2)
      return {"view1": view1, "view2": view2, "label": label}
    return {
      "view1": _bytes(crop1[..., : views.channels]),
      "view2": _bytes(crop2[..., : views.channels]),
      "params1": params1,
      "params2": params2,
      "label": label,
    }

  def one(position, record):
    return complete(*(part[None] for part in crop(position, record)))

  threads = threads or os.cpu_count() or 1
  chunk = min(_CHUNK_PIXELS // views.image_size**2, batch_size)
  if chunk <= 1:  # Batches of one would only be copied.
    return stream.map(one, threads).rebatch(batch_size)
  chunks = stream.map(crop, threads).batch(chunk, drop_remainder=True)
  return chunks.map(complete, threads).rebatch(batch_size)


def _bytes(crops: tf.Tensor) -> tf.Tensor:
  return tf.cast(tf.clip_by_value(tf.round(crops), 0, 255), tf.uint8)


def _part_stream(
  source: loading.Source, reading: Reading, part: int, seed: int, start: int
) -> tf.data.Dataset:
  """Returns the records of a part of the stream, from a position in it on."""
  files = _files(source, source.dataset.pretrain, part, reading.parts)
  seeds = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), -1]), part)
  split = source.dataset.pretrain
  total = loading.num_examples(source, split)
  if _record_size(source) * total <= reading.cache_bytes:
    records = _in_memory(source, split, _in_order(files))
    return _permuted(records, seeds, start)
  return _streamed(source, reading, files, seeds, start)


def _record_size(source: loading.Source) -> int:
  """Bytes of an undecoded example."""
  info = source.builder.info
  return max(info.dataset_size // info.splits.total_num_examples, 1)


def _streamed(
  source: loading.Source,
  reading: Reading,
  files: Files,
  seeds: tf.Tensor,
  start: int,
) -> tf.data.Dataset:
  """Returns endless shuffled epochs of the files' records, from one on."""
  # At least enough to draw from.
  buffer = reading.shuffle_bytes // _record_size(source)
  buffer = max(min(reading.shuffle_buffer, buffer), 1)
  first_epoch, start_in_epoch = divmod(start, sum(files[2]))

  def epoch_records(epoch):
    return _shuffled(files, buffer, tf.random.fold_in(seeds, epoch))

  dataset = tf.data.Dataset.range(first_epoch, tf.int64.max)
  dataset = dataset.flat_map(epoch_records).skip(start_in_epoch)
  return dataset.prefetch(max(int(buffer * _AHEAD), 1))


def _woven(streams: list[tf.data.Dataset], length: int) -> tf.data.Dataset:
  """Takes so many examples of each stream in turn."""
  if len(streams) == 1:
    return streams[0]
  turns = tf.data.Dataset.range(len(streams) * length).repeat()
  return tf.data.Dataset.choose_from_datasets(
    streams, turns.map(lambda i: i // length)
  )


def _slice_size(batch_size: int, index: int, count: int) -> int:
  return batch_size * (index + 1) // count - batch_size * index // count


def _slices(
  records: tf.data.Dataset, batch_size: int, index: int, count: int
) -> tf.data.Dataset:
  """Positions and records of one slice of every batch, of `count` slices."""
  numbered = records.enumerate()
  if count == 1:
    return numbered
  first, after = (batch_size * i // count for i in (index, index + 1))

  def is_in_slice(i, unused_record):
    return (i % batch_size >= first) & (i % batch_size < after)

  return numbered.filter(is_in_slice)


def _files(
  source: loading.Source, split: str, part: int = 0, parts: int = 1
) -> Files:
  """Returns the names of a split's files, records to skip and to take.

  Of several parts, equal but for one example, those of one.
  """
  loading.split_info(source, split)  # Answers an unknown one.
  splits = tfds.even_splits(split, parts, drop_remainder=False)
  instructions = source.builder.info.splits[splits[part]].file_instructions
  return (
    [file.filename for file in instructions],
    [file.skip for file in instructions],
    [file.take for file in instructions],
  )


def _records(
  name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor
) -> tf.data.Dataset:
  """Returns one file's part of a split, as serialized examples."""
  skip, take = tf.cast(skip, tf.int64), tf.cast(take, tf.int64)
  records = tf.data.TFRecordDataset(name).skip(skip).take(take)
  # Fewer are an error: a file may have been cut off between two records.
  return records.apply(tf.data.experimental.assert_cardinality(take))


def _in_order(files: Files) -> tf.data.Dataset:
  return tf.data.Dataset.from_tensor_slices(files).flat_map(_records)


def _shuffled(files: Files, buffer: int, seeds: tf.Tensor) -> tf.data.Dataset:
  """Returns all records in the order that belongs to the seeds."""
  file_seed, record_seed = tf.unstack(tf.random.split(seeds, 2))
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
    buffer, seed=record_seed[0], reshuffle_each_iteration=False
  )


def _in_memory(
  source: loading.Source, split: str, records: tf.data.Dataset
) -> tf.Tensor:
  reader = records.as_numpy_iterator()
  return tf.constant([*_guarded(reader, source, split)])


def _permuted(
  records: tf.Tensor, seeds: tf.Tensor, start: int
) -> tf.data.Dataset:
  """Returns what `_streamed` does, of records that are held in memory."""
  size = len(records)

  def record(position):
    epoch_seeds = tf.random.fold_in(seeds, position // size)
    i = tf.random.experimental.index_shuffle(
      position % size, epoch_seeds, size - 1
    )
    return records[i]

  return tf.data.Dataset.range(start, tf.int64.max).map(record)


def _parser(
  source: loading.Source, channels: int = 3, *, several: bool = False
) -> Callable:
  """Returns a function from a serialized example to its image and label.

  The image is [H, W, channels] uint8, the label an int32, -1 where there is
  none; `several` makes it 0 or 1 for each class where an image may be of more
  than one. Other features, which some data sets have many of, are not looked at.
  """
  features = source.builder.info.features
  label_name = source.dataset.label
  names = ["image", label_name] if source.num_classes else ["image"]
  features = tfds.features.FeaturesDict(
    {name: features[name] for name in names}
  )
  decoders = {"image": tfds.decode.SkipDecoding()}

  def parse(record):
    example = features.deserialize_example(record, decoders=decoders)
    image = tf.io.decode_image(
      example["image"], channels=channels, expand_animations=False
    )
    label = tf.cast(example.get(label_name, -1), tf.int32)
    if source.is_multi_label and several:
      each = tf.one_hot(label, source.num_classes, dtype=tf.int32)
      label = tf.maximum(tf.reduce_max(each, axis=0), 0)  # Of none, it is < 0.
    elif source.is_multi_label:
      label = tf.constant(-1)  # Pretraining's classifier is for one.
    return tf.ensure_shape(image, [None, None, channels]), label

  return parse


def _iterate(dataset: tf.data.Dataset, prefetch: int = 0) -> Iterator:
  """Runs a data set, a few elements ahead."""
  keep_freed_memory()
  dataset = dataset.prefetch(prefetch or tf.data.AUTOTUNE)
  return dataset.as_numpy_iterator()


def keep_freed_memory() -> None:
  """Makes glibc use large buffers again instead of asking for fresh ones.

  The system clears fresh memory page by page, which on virtual machines takes a
  quarter of the time of all augmentations (measured under Firecracker).
  """
  with contextlib.suppress(OSError, AttributeError):  # Another C library.
    libc = ctypes.CDLL("libc.so.6")
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
      libc.mallopt(option, 2**30)


def _guarded(
  iterator: Iterator, source: loading.Source, split: str
) -> Iterator:
  """Passes on an iterator, and tells in one line which file it failed at."""
  try:
    yield from iterator
  except tf.errors.OpError as error:
    raise errors.UserError(_diagnosis(source, split, error)) from error


def _diagnosis(
  source: loading.Source, split: str, error: tf.errors.OpError
) -> str:
  """Reads a split's files one by one to name the one that is to blame."""
  parse = _parser(source)
  remedy = "copy it again, or delete the folder and prepare the data set anew"
  for name, *part in zip(*_files(source, split), strict=True):
    if not tf.io.gfile.exists(name):
      return f"{name} is missing; {remedy}."
    try:
      for record in _records(name, *part):
        parse(record)
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError):
      return f"{name} is truncated or corrupt; {remedy}."
    except tf.errors.OpError as found:
      reason = tfds_store.one_line(found.message)
      return (
        f"{name} holds a record that is not what features.json beside it says"
        f" ({reason}); {remedy}."
      )
  return f"Reading {source.builder.data_dir} failed: {tfds_store.one_line(error.message)}."
