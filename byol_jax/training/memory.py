"""Refuses a run that cannot fit into the memory of its machine."""

import math
import os

import chex
import jax

from byol_jax import errors
from byol_jax.config import schema


def check_batch(config: schema.Config) -> None:
  """Raises `UserError` for a batch that no machine like this holds.

  It counts one batch of views in the memory of the host. A run that passes may
  still need more (docs/scaling.md).

  Args:
    config: a resolved configuration, see `resolve.resolved`.
  """
  data, train = config.data, config.train
  images = train.batch_size // jax.process_count()
  on_device = config.augment.placement == "device"
  bytes_per_value = 1 if on_device else 4  # Crops are uint8, views float32.
  height, width = schema.image_shape(data)
  size = f"data.image_size={data.image_size}"
  if data.image_width:
    size += f" and data.image_width={data.image_width}"
  _check(
    f"train.batch_size={train.batch_size} with {size}",
    "a batch of two views",
    2 * images * height * width * data.channels * bytes_per_value,
  )


def check_state(config: schema.Config, state: chex.ArrayTree) -> None:
  """Raises `UserError` for a network whose state this machine cannot hold.

  It counts one copy of the state on CPUs, and nothing on other devices, whose
  memory JAX does not tell for all kinds.

  Args:
    config: a resolved configuration, see `resolve.resolved`.
    state: shapes of the training state, from `jax.eval_shape`.
  """
  if jax.default_backend() != "cpu":
    return
  model = config.model
  _check(
    f"model.encoder.name={model.encoder.name} with"
    f" model.encoder.width={model.encoder.width:g},"
    f" model.projector.hidden_size={model.projector.hidden_size} and"
    f" model.predictor.hidden_size={model.predictor.hidden_size}",
    "the training state",
    sum(
      math.prod(leaf.shape) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(state)
    ),
  )


def _check(setting: str, what: str, needed: int) -> None:
  """Raises `UserError` if something needs more than the physical memory."""
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  if needed > memory:
    raise errors.UserError(
      f"{setting} does not fit into memory: {what} takes {needed / 1e9:,.0f} GB"
      f" and this machine has {memory / 1e9:,.0f}; lower them."
    )
