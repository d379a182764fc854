"""Tables of examples that live on the devices, and the rows that an update takes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.runtime import devices


def part_of(size: int, axis_name: str | None) -> tuple[chex.Numeric, int]:
  """Returns the first index and the length of a device's part of a batch.

  Args:
    size: of the batch over all devices, which divide it.
    axis_name: of the devices; None for a single one.
  """
  if axis_name is None:
    return 0, size
  count = size // jax.lax.axis_size(axis_name)
  return jax.lax.axis_index(axis_name) * count, count


def take_rows(
  table: chex.ArrayTree,
  rows: chex.Array,
  num_rows: int,
  axis_name: str | None = None,
) -> chex.ArrayTree:
  """Returns a device's part of the rows that all devices ask for.

  Args:
    table: leaves [R, ...] of integers: all rows, or those that this device holds,
      the next R after those of the device before.
    rows: [B] of the whole batch, the same on all devices.
    num_rows: of the table on all devices.
    axis_name: of the devices; None for a single one.

  Returns:
    Leaves [B / devices, ...], for this device's part of `rows`.
  """
  first, count = part_of(len(rows), axis_name)
  own_rows = len(jax.tree.leaves(table)[0])
  if own_rows >= num_rows:
    own = jax.lax.dynamic_slice(rows, (jnp.asarray(first),), (count,))
    return jax.tree.map(lambda leaf: leaf[own], table)
  # Each device adds the rows that it holds, and zeros in place of the others.
  index = rows.astype(jnp.int32) - jax.lax.axis_index(axis_name) * own_rows
  is_here = (index >= 0) & (index < own_rows)

  def exchange(leaf: chex.Array) -> chex.Array:
    mine = leaf[jnp.where(is_here, index, 0)]
    mask = is_here.reshape(-1, *[1] * (leaf.ndim - 1))
    mine = jnp.where(mask, mine, jnp.zeros((), leaf.dtype))
    if leaf.dtype == jnp.uint16:  # NCCL adds bytes and words of 32 bits only.
      mine = mine.astype(jnp.uint32)
    total = jax.lax.psum_scatter(mine, axis_name, tiled=True)
    return total.astype(leaf.dtype)

  return jax.tree.map(exchange, table)


def place(table: chex.ArrayTree, *, replicated: bool) -> chex.ArrayTree:
  """Moves a table to the local devices, for `take_rows` in an update.

  Args:
    table: leaves [R, ...]: all rows for each device, or the rows of the local
      devices one after the other, which the devices divide.
    replicated: whether each device holds all rows.

  Returns:
    Leaves [local devices, rows of a device, ...].
  """
  local = jax.local_devices()
  by_device = devices.sharding(local, devices.AXIS)

  def move(array: np.ndarray) -> jax.Array:
    if replicated:
      array = np.broadcast_to(array, (len(local), *array.shape))
    else:
      array = array.reshape(len(local), -1, *array.shape[1:])
    return jax.device_put(array, by_device)

  return jax.tree.map(move, table)
