"""Puts the images of a run on its devices."""

import math
import os
from collections.abc import Callable, Sequence

import chex
import jax
import numpy as np

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data.source import Source
from byol_jax.runtime import devices, processes, tables

# Of the memory of a device, what images may take. Our choice: activations take
# most of the rest.
_SHARE = 0.3


def place(
  config: schema.Config,
  source: Source,
  tell: Callable[[str], None],
) -> chex.ArrayTree:
  """Decodes the images of a run and moves them to the local devices.

  Each device holds all images if they fit, and else a part of them.

  Args:
    config: a resolved configuration.
    source: the data set.
    tell: prints a line for people.

  Returns:
    What `augment.device_batches.draw` takes, with a leading axis of local
    devices.

  Raises:
    UserError: if the images do not fit, or a file cannot be read.
  """
  split = source.dataset.pretrain
  count = source.num_examples(split)
  if count < config.train.batch_size:
    raise errors.UserError(
      f"train.batch_size={config.train.batch_size} is larger than the {count}"
      f" examples of split {split!r} of {source.dataset.tfds_name}; lower it to"
      f" {count} or less."
    )
  # The same in all processes, so that they place the images alike.
  room = processes.broadcast_from_primary(
    lambda: int(_SHARE * _device_memory())
  )
  images = source.decode(
    split,
    config.data.channels,
    check=lambda shape, itemsize: _require_room(shape, itemsize, room),
  )
  pixels = images.pixels
  replicated, of_each = _bytes_of_each(pixels.shape, pixels.itemsize, room)
  tell(
    f"{_describe(pixels.shape)} are on the devices; they take"
    f" {of_each / 1e6:,.0f} MB of each"
    + ("." if replicated else ", which holds a part of them.")
  )
  table = images._asdict()
  if not replicated:
    table = jax.tree.map(_own_rows, table)
  return tables.place(table, replicated=replicated)


def _bytes_of_each(
  shape: Sequence[int], itemsize: int, room: int
) -> tuple[bool, int]:
  """Returns whether each device holds all images, and the bytes that it holds."""
  size = math.prod(shape) * itemsize
  return size <= room, size if size <= room else -(-size // jax.device_count())


def _describe(shape: Sequence[int]) -> str:
  count, *size = shape
  return f"{count:,} images of up to {'x'.join(map(str, size))}"


def _require_room(shape: Sequence[int], itemsize: int, room: int) -> None:
  """Raises `UserError` if an array of images does not fit in `room` of each device."""
  _, of_each = _bytes_of_each(shape, itemsize, room)
  if of_each > room:
    raise errors.UserError(
      f"data.placement=device does not fit: {_describe(shape)} take"
      f" {of_each / 1e9:,.1f} GB on each of {jax.device_count()} devices, which have"
      f" {room / 1e9:,.1f} GB for images; set data.copy_side to make them smaller, or"
      " data.placement=host."
    )


def _own_rows(array: np.ndarray) -> np.ndarray:
  """Returns the rows of the local devices; the last ones may be repeated."""
  of_each = -(-len(array) // jax.device_count())
  first = jax.process_index() * jax.local_device_count() * of_each
  rows = first + np.arange(jax.local_device_count() * of_each)
  return array[np.minimum(rows, len(array) - 1)]


def _device_memory() -> int:
  """Returns the memory of a device, bytes; devices on CPUs share the machine's."""
  if limit := devices.memory_limit():
    return limit
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return memory // jax.local_device_count()
