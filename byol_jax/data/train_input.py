"""Makes training batches: random views of an endless stream of examples.

Training reads one global stream: the shuffled order of epoch 0, then that of
epoch 1, and so on. The example at a position and its two views depend on the
seed and the position alone. Batches, resumption and processes only cut the
stream into pieces.

Several processes read different files. The stream interleaves
`data.parts` streams, each of one part of the split and shuffled by
itself, which lie side by side in every batch. If the parts do not divide by the
processes, as after a restart on more of them, each process reads all parts and
makes views of its slice of every batch.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from byol_jax import errors
from byol_jax.augment import sampling, spec
from byol_jax.config import schema
from byol_jax.data import (
  crops,
  diagnosis,
  host_ops,
  loading,
  records,
  stream,
)
from byol_jax.data.source import WHOLE_BATCH, ProcessSlice
from byol_jax.data.tensorflow_setup import without_autograph

# Pixels of the views that one call augments. A call has a cost that many small
# images share, and large images should stay in a core's cache (measured at 224
# and at 32 pixels).
_CHUNK_PIXELS = 2**16


@without_autograph
def train_batches(
  source: loading.Source,
  views: spec.Views,
  options: schema.DataConfig,
  *,
  batch_size: int,
  seed: int,
  start_step: int = 0,
  process: ProcessSlice = WHOLE_BATCH,
) -> Iterator[dict[str, Any]]:
  """Returns the endless batches of the pretraining split from a step on.

  Batch `step` holds positions [step * batch_size, (step + 1) * batch_size) of
  the stream, so it may straddle two epochs. Starting late costs at most one
  epoch of reading without decoding.

  Args:
    source: the data set.
    views: specification of the views of each image.
    options: how the images are read.
    batch_size: examples in a batch over all processes.
    seed: decides order and views.
    start_step: the first batch to return.
    process: which slice of each batch to return; by default all of it.

  Returns:
    An iterator of `{"view1", "view2": [b, H, W, channels] float32 in [0, 1],
    "label": [b] int32, -1 where unknown}`, with b = batch_size / process.count.
    With placement device, views are uint8 crops, and "params1" and "params2"
    hold their `AugmentParams`.

  Raises:
    UserError: if the batch is larger than the split, or cannot be divided by
      parts and processes; from the iterator, if a file cannot be read.
  """
  _check_batch_size(source, batch_size, options.parts, process.count)
  examples = _local_stream(
    source, options, batch_size, seed, start_step, process
  )
  batches = augment(
    examples,
    records.parser(source, views.channels, decode_side=options.decode_side),
    views,
    len(process.indices(batch_size)),
    seed,
    stream.num_threads(options),
  )
  return diagnosis.explain_errors(
    stream.iterate(batches, options.prefetch), source, source.dataset.pretrain
  )


@without_autograph
def first_views(
  source: loading.Source,
  views: spec.Views,
  options: schema.DataConfig,
  *,
  count: int,
  seed: int,
) -> tuple[list[np.ndarray], dict[str, Any]]:
  """Returns the first images of the first training batch, and their views.

  Args:
    source: the data set.
    views: specification of the views of each image.
    options: how the images are read.
    count: number of images.
    seed: decides order and views.

  Returns:
    The images before augmentation, [H, W, channels] uint8 each, and a batch of
    their views as `train_batches` returns it.

  Raises:
    UserError: if a file cannot be read.
  """
  parse = records.parser(
    source, views.channels, decode_side=options.decode_side
  )
  examples = stream.part_stream(source, options, 0, seed, 0)
  images = examples.take(count).map(lambda record: parse(record)[0])
  batches = augment(
    examples.enumerate(), parse, views, count, seed, stream.num_threads(options)
  )
  *originals, batch = diagnosis.explain_errors(
    itertools.chain(
      images.as_numpy_iterator(), batches.take(1).as_numpy_iterator()
    ),
    source,
    source.dataset.pretrain,
  )
  return originals, batch


def augment(
  examples: tf.data.Dataset,
  parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
  views: spec.Views,
  batch_size: int,
  seed: int,
  threads: int,
) -> tf.data.Dataset:
  """Turns positions and records into batches of views.

  Args:
    examples: of positions in the global stream, and records.
    parse: returns the image, [H, W, 1 or 3] uint8, and the label of a record.
    views: specification of the views of each image.
    batch_size: images in a batch.
    seed: with the position, decides everything random.
    threads: images that are processed at a time.

  Returns:
    A data set of batches as `train_batches` returns them.
  """
  finish = _finish_on_host if views.placement == "host" else _keep_for_device
  finish_chunk = finish(views)

  def crop(position, record):
    image, label = parse(record)
    return *crops.two_random_crops(
      image, views, tf.stack([seed, position])
    ), label

  def augment_one(position, record):
    return finish_chunk(*(part[None] for part in crop(position, record)))

  chunk = min(_CHUNK_PIXELS // math.prod(views.image_shape), batch_size)
  if chunk <= 1:  # Batching would only copy the image.
    return examples.map(augment_one, threads).rebatch(batch_size)
  chunks = examples.map(crop, threads).batch(chunk, drop_remainder=True)
  return chunks.map(finish_chunk, threads).rebatch(batch_size)


def _finish_on_host(views: spec.Views) -> Callable[..., dict[str, Any]]:
  """Returns a function from crops and random numbers to finished views."""
  enabled = spec.enabled_ops(views.view1, views.view2)

  @tf.function(jit_compile=True, autograph=False)
  def apply(images, params):
    return host_ops.apply(images, params, enabled)[..., : views.channels]

  def finish(crop1, crop2, numbers1, numbers2, label):
    params1 = sampling.augment_params(tf, numbers1, views.view1, enabled)
    params2 = sampling.augment_params(tf, numbers2, views.view2, enabled)
    return {
      "view1": apply(crop1, params1),
      "view2": apply(crop2, params2),
      "label": label,
    }

  return finish


def _keep_for_device(views: spec.Views) -> Callable[..., dict[str, Any]]:
  """Returns a function to uint8 crops and their augmentation parameters."""
  enabled = spec.enabled_ops(views.view1, views.view2)

  def as_bytes(images):
    images = tf.clip_by_value(tf.round(images[..., : views.channels]), 0, 255)
    return tf.cast(images, tf.uint8)

  def finish(crop1, crop2, numbers1, numbers2, label):
    return {
      "view1": as_bytes(crop1),
      "view2": as_bytes(crop2),
      "params1": sampling.augment_params(tf, numbers1, views.view1, enabled),
      "params2": sampling.augment_params(tf, numbers2, views.view2, enabled),
      "label": label,
    }

  return finish


def _local_stream(
  source: loading.Source,
  options: schema.DataConfig,
  batch_size: int,
  seed: int,
  start_step: int,
  process: ProcessSlice,
) -> tf.data.Dataset:
  """Returns global positions and records of one process's slices of batches."""
  part_size = batch_size // options.parts
  local_size = batch_size // process.count
  start = start_step * batch_size

  def interleave(parts):
    streams = [
      stream.part_stream(source, options, part, seed, start_step * part_size)
      for part in parts
    ]
    return stream.interleave(streams, part_size)

  own, left = divmod(options.parts, process.count)
  if left:
    whole = interleave(range(options.parts))
    slices = stream.take_slices(whole, batch_size, process)
    return slices.map(lambda i, record: (start + i, record))

  def number(i, record):
    step, index = i // local_size, i % local_size
    first = start + process.index * local_size
    return first + step * batch_size + index, record

  parts = range(process.index * own, (process.index + 1) * own)
  return interleave(parts).enumerate().map(number)


def _check_batch_size(
  source: loading.Source, batch_size: int, parts: int, process_count: int
) -> None:
  """Raises `UserError` unless batches fit the split, parts and processes."""
  split = source.dataset.pretrain
  size = loading.num_examples(source, split)
  if size < batch_size:
    raise errors.UserError(
      f"train.batch_size={batch_size} is larger than the {size} examples of split"
      f" {split!r} of {source.dataset.tfds_name}; lower it to {size} or less."
    )
  for name, divisor in {
    f"data.parts={parts}": parts,
    f"the {process_count} processes": process_count,
  }.items():
    if batch_size % divisor:
      lower = batch_size - batch_size % divisor
      raise errors.UserError(
        f"train.batch_size={batch_size} must be a multiple of {name}; try"
        f" {lower or divisor} or {lower + divisor}."
      )
