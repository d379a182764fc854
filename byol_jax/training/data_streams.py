"""The data layer's streams, as a configuration asks for them."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data import input_pipeline, loading
from byol_jax.runtime import devices


def open_source(
  config: schema.Config, dataset: str = "", root: str = ""
) -> loading.Source:
  """Opens a data set; see `datasets.load` for its errors.

  Args:
    config: says where data sets are stored and how folders are read.
    dataset: the data set's name; by default the one that is trained on.
    root: for `folder`, the folder of images.
  """
  data = config.data
  if not dataset:
    dataset, root = data.dataset, data.root
  if dataset != "folder":
    return loading.load(dataset, data.data_dir)
  return loading.load_folder(root, data)


def make_views(config: schema.Config) -> spec.Views:
  """Returns the specification of the two views of an image."""
  return spec.Views(
    view1=config.augment.view1,
    view2=config.augment.view2,
    image_size=config.data.image_size,
    channels=config.data.channels,
    placement=config.augment.placement,
  )


def pipeline_options(config: schema.Config) -> input_pipeline.Reading:
  """Returns how a configuration reads its data."""
  data = config.data
  return input_pipeline.Reading(
    shuffle_buffer=data.shuffle_buffer,
    shuffle_bytes=data.shuffle_bytes,
    cache_bytes=data.cache_bytes,
    parts=data.parts,
    threads=data.threads,
    prefetch=data.prefetch,
  )


def train_batches(
  config: schema.Config, source: loading.Source, start_step: int
) -> Iterator[dict[str, Any]]:
  """Yields the training batches from a step on, on the devices ahead of use."""
  return devices.prefetch(
    input_pipeline.train_batches(
      source,
      make_views(config),
      pipeline_options(config),
      batch_size=config.train.batch_size,
      seed=config.seed,
      start_step=start_step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
  )


def eval_batches(
  config: schema.Config,
  source: loading.Source,
  split: str,
  batch_size: int | None = None,
  places: range | None = None,
  *,
  spread: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the examples of a split once, as evaluations see them.

  Args:
    config: says how images are cropped and scaled.
    source: the data set.
    split: tfds split expression.
    batch_size: by default `evaluation.batch_size`.
    places: indices of the split to read; by default all of them.
    spread: whether processes read batches in turn, the last of which are padded;
      otherwise each process reads all of them.
  """
  return input_pipeline.eval_batches(
    source,
    split,
    batch_size=batch_size or config.evaluation.batch_size,
    image_size=config.data.image_size,
    crop=config.data.eval_crop,
    channels=config.data.channels,
    places=places,
    process_index=jax.process_index() if spread else 0,
    process_count=jax.process_count() if spread else 1,
  )
