"""Draws training batches out of images that live on the devices.

The order of images and their views follow from the seed and the position in the
stream, as on the host (`data.train_input`), so that a run sees the same images in
the same order with both. A step needs nothing from the host.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp

from byol_jax.augment import device_crops, device_random, sampling, spec
from byol_jax.augment.device_random import u32
from byol_jax.runtime import tables

# Steps and images are counted in so many bits.
_BITS = 31


class Stream(NamedTuple):
  """An endless stream of the views of images.

  Attributes:
    views: specification of the views of each image.
    seed: decides order and views.
    num_examples: images in an epoch, at most 2**30.
    batch_size: images in a batch over all devices, at most `num_examples`.
  """

  views: spec.Views
  seed: int
  num_examples: int
  batch_size: int


def draw(
  stream: Stream,
  resident: Mapping[str, chex.Array],
  step: chex.Array,
  axis_name: str | None = None,
) -> dict[str, Any]:
  """Returns a device's part of a batch.

  Args:
    stream: what to draw.
    resident: "pixels" [N, H, W, C], "sizes" [N, 2] int32 and "labels" [N]
      int32: all images, or the rows that this device holds, see
      `tables.take_rows`.
    step: int32 scalar, the number of the batch.
    axis_name: of the devices that share the batch; None for one.

  Returns:
    The batch that `data.train_input.train_batches` makes with
    `augment.placement=device`.
  """
  first, count = tables.part_of(stream.batch_size, axis_name)
  rows = tables.take_rows(
    resident, order(stream, step), stream.num_examples, axis_name
  )
  own = jnp.asarray(first, jnp.uint32) + jnp.arange(count, dtype=jnp.uint32)
  position = device_random.add(
    device_random.multiply(step.astype(jnp.uint32), u32(stream.batch_size)), own
  )
  return views_of(stream.views, stream.seed, rows, position)


def views_of(
  views: spec.Views,
  seed: int,
  rows: Mapping[str, chex.Array],
  position: device_random.Wide,
) -> dict[str, Any]:
  """Returns crops of two views of each image, and their parameters.

  Args:
    views: specification of the views of each image.
    seed: with the position, decides the views.
    rows: "pixels" [B, H, W, C], "sizes" [B, 2] and "labels" [B] of the images.
    position: of each image in the stream, two halves [B] uint32.

  Returns:
    The batch, as `draw` does.
  """
  enabled = spec.enabled_ops(views.view1, views.view2)
  numbers = sampling.by_view(
    jnp,
    device_random.uniform(
      (device_random.wide(seed), position),
      sampling.count_numbers(enabled),
    ),
  )
  view1, view2 = device_crops.random_crops(
    rows["pixels"], rows["sizes"], numbers, views
  )
  params1, params2 = (
    sampling.augment_params(jnp, numbers[:, i], view, enabled)
    for i, view in enumerate((views.view1, views.view2))
  )
  return {
    "view1": view1,
    "view2": view2,
    "params1": params1,
    "params2": params2,
    "label": rows["labels"],
  }


def order(stream: Stream, step: chex.Array) -> chex.Array:
  """Returns which images a batch holds, [batch_size] uint32."""
  epoch, offset = _divide(step, stream.batch_size, stream.num_examples)
  offset = offset + jnp.arange(stream.batch_size, dtype=jnp.uint32)
  is_next = offset >= stream.num_examples
  seeds = device_random.part_seeds(stream.seed, 0)
  return device_random.shuffle(
    jnp.where(is_next, offset - stream.num_examples, offset),
    device_random.epoch_seeds(seeds, epoch + is_next),
    stream.num_examples,
  )


def _divide(
  step: chex.Array, batch_size: int, num_examples: int
) -> tuple[chex.Array, chex.Array]:
  """Returns the quotient and the remainder of `step * batch_size / num_examples`.

  The product may take more than 32 bits, so the digits of the step are divided
  one after the other.
  """
  quotient = remainder = jnp.uint32(0)
  for digit in reversed(range(_BITS)):
    is_set = ((step >> digit) & 1).astype(jnp.uint32)
    remainder = 2 * remainder + is_set * jnp.uint32(batch_size)
    quotient = 2 * quotient + remainder // num_examples
    remainder = remainder % num_examples
  return quotient, remainder
