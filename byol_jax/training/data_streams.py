"""The data layer's streams, as a configuration asks for them."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import array_source
from byol_jax.data.source import (
  WHOLE_BATCH,
  CentreCrop,
  ProcessSlice,
  Source,
)
from byol_jax.runtime import devices, processes
from byol_jax.training import build, residence


def open_source(
  config: schema.Config, dataset: str = "", root: str = ""
) -> Source:
  """Opens a data set; see `loading` for errors.

  Args:
    config: says where data sets are stored and how folders are read.
    dataset: the data set's name; by default the one that is trained on, in the
      part that is.
    root: for `folder`, the folder of images; for `arrays`, the file.
  """
  data = config.data
  if not dataset:
    source = open_source(config, data.dataset, data.root)
    if not data.split and data.fraction == 1:
      return source
    return source.select(data.split, data.fraction)
  if dataset == "arrays":
    return array_source.load(root)
  if data.channels not in (1, 3):
    raise errors.UserError(
      f"data.channels={data.channels} must be 1 or 3 for data.dataset={dataset}; images"
      " of other channels can be a file of arrays (docs/data.md)."
    )
  from byol_jax.data import loading  # Not every machine has TensorFlow.

  if dataset != "folder":
    return loading.load(dataset, data.data_dir)
  return loading.load_folder(root, data)


def this_process() -> ProcessSlice:
  """Returns the slice of every batch that this process makes."""
  return ProcessSlice(jax.process_index(), jax.process_count())


def train_batches(
  config: schema.Config,
  source: Source,
  start_step: int,
  tell: Callable[[str], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:
  """Yields what the updates from a step on take, on the devices ahead of use.

  With `data.placement=device` that is all images at each step. With `data.copy_side`
  it is made from the copy of the data set, which is written first if needed.

  Args:
    config: a resolved configuration.
    source: the data set.
    start_step: the first batch to return.
    tell: prints a line for people.
  """
  if config.data.copy_side:
    original = source
    source = processes.primary_first(
      lambda: original.small_copy(config.data, tell)
    )
  if config.data.placement == "device":
    return itertools.repeat(residence.place(config, source, tell))
  return devices.prefetch(
    source.train_batches(
      build.make_views(config),
      config.data,
      batch_size=config.train.batch_size,
      seed=config.seed,
      start_step=start_step,
      process=this_process(),
    )
  )


def eval_batches(
  config: schema.Config,
  source: Source,
  split: str,
  batch_size: int | None = None,
  indices: range | None = None,
  *,
  spread: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the examples of a split once, as evaluations see them.

  Args:
    config: says how images are cropped and scaled.
    source: the data set.
    split: tfds split expression.
    batch_size: by default `evaluation.batch_size`.
    indices: examples of the split to read; by default all of them.
    spread: whether processes read batches in turn, the last of which are padded;
      otherwise each process reads all of them.
  """
  data = config.data
  return source.eval_batches(
    split,
    CentreCrop(schema.image_shape(data), data.eval_crop, data.channels),
    batch_size=batch_size or config.evaluation.batch_size,
    indices=indices,
    process=this_process() if spread else WHOLE_BATCH,
  )
