"""Data-parallel computation on several devices; the only user of `pmap`.

The state is the same on all devices and each computes its part of the batch.
The rest of the code sees functions of a state and a batch, and an axis name.

JAX develops `pmap` no further and recommends `jax.jit` of `jax.shard_map`. Only
this module would change: `sharding` already names a mesh of the axis `AXIS`;
`pmap_update` would become `jax.jit(jax.shard_map(...), donate_argnums=0)` with
the specs `P()` for the state and `P(AXIS)` for the batch, `pmap_examples` and
the checksums likewise, and `prefetch` would keep the batch's own leading axis.
With several processes, arrays would span all devices instead of the local ones.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

from byol_jax import errors
from byol_jax.runtime import platforms

AXIS = "devices"


def check_batch_size(batch_size: int, microbatches: int) -> None:
  """Raises `UserError` unless devices and micro-batches divide a batch evenly.

  Args:
    batch_size: examples in a batch over all devices.
    microbatches: parts in which each device processes its examples.
  """
  devices = jax.device_count()
  parts = devices * microbatches
  if batch_size % parts:
    lower = batch_size // parts * parts
    remedy = " or ".join(str(n) for n in (lower, lower + parts) if n)
    times = (
      f" times train.microbatches={microbatches}" if microbatches > 1 else ""
    )
    raise errors.UserError(
      f"train.batch_size={batch_size} must be a multiple of the {devices}"
      f" devices{times}; try {remedy}."
    )


def check_group_size(group_size: int) -> None:
  """Raises `UserError` unless groups of devices share the devices evenly."""
  devices = jax.device_count()
  if group_size and devices % group_size:
    known = [n for n in range(1, devices + 1) if devices % n == 0]
    raise errors.UserError(
      f"model.batch_norm.group_size={group_size} must divide the {devices}"
      f" devices; choose one of {', '.join(map(str, known))}, or 0 for all."
    )


def pmap_update(
  update: Callable[..., Any],
  *,
  keeps_state: bool = False,
  out_axes: Any = None,
) -> Any:
  """Runs `update` on all devices of all processes.

  Args:
    update: a function of `(state, batch, axis_name)` that averages over the
      axis whatever must be the same on all devices.
    keeps_state: whether the state may be used after the call. Otherwise its memory
      is used again (donated), so do not touch it.
    out_axes: 0 for results that differ between devices, and have a leading device axis
      then; a tree, as `jax.pmap` takes it.

  Returns:
    A function of `(state, batch)`. The state has no device axis; give the first
    call a state from `replicate`. The batch has a leading device axis, see
    `prefetch`.
  """

  def on_device(state: chex.ArrayTree, batch: chex.ArrayTree) -> Any:
    return update(state, batch, axis_name=AXIS)

  return jax.pmap(
    on_device,
    axis_name=AXIS,
    in_axes=(None, 0),
    out_axes=out_axes,
    donate_argnums=() if keeps_state else 0,
  )


def gather_examples(
  tree: chex.ArrayTree, axis_name: str | None
) -> chex.ArrayTree:
  """Concatenates the [b, ...] of all devices on an axis, in their order."""
  if axis_name is None:
    return tree
  return jax.lax.all_gather(tree, axis_name, tiled=True)


def mean_over_devices(
  tree: chex.ArrayTree, axis_name: str | None, group_size: int = 0
) -> chex.ArrayTree:
  """Returns the means of a tree's leaves over an axis of devices.

  On CPUs all leaves go as one array (docs/scaling.md). Compilers for accelerators
  bundle leaves themselves and send some while they compute others.

  Args:
    tree: floating-point arrays.
    axis_name: None returns the tree as it is.
    group_size: devices that share a mean, neighbours; 0 for all of them.
  """
  if axis_name is None:
    return tree
  groups = None
  if group_size:
    devices = range(jax.lax.axis_size(axis_name))
    groups = [
      list(devices[i : i + group_size])
      for i in range(0, len(devices), group_size)
    ]
  mean = functools.partial(
    jax.lax.pmean, axis_name=axis_name, axis_index_groups=groups
  )
  if not platforms.takes_form("flat all-reduce"):
    return mean(tree)
  flat, unflatten = flatten_util.ravel_pytree(tree)
  return unflatten(mean(flat))


def gather_over_devices(
  x: chex.Array, axis_name: str | None
) -> tuple[chex.Array, chex.Numeric]:
  """Returns the rows of all devices, and the index of this device's first one.

  Args:
    x: this device's rows, [b, ...]; every device has as many.
    axis_name: of the devices; None returns the rows as they are, and 0.
  """
  if axis_name is None:
    return x, 0
  first = jax.lax.axis_index(axis_name) * len(x)
  return gather_examples(x, axis_name), first


def pmap_examples(
  fn: Callable[..., chex.ArrayTree],
) -> Callable[..., chex.ArrayTree]:
  """Splits examples over the local devices.

  Args:
    fn: a function of `(shared, examples)`, where `shared` is any pytree and
      `examples` a pytree of [b, ...]; returns a pytree of [b, ...] that treats
      each example alone.

  Returns:
    A function of the same arguments for any number of examples, which returns
    NumPy arrays. It repeats the last example until the devices divide the
    number, and cuts off the results of the repetitions.
  """
  # Named, since the primary process writes reports without the others.
  mapped = jax.pmap(fn, in_axes=(None, 0), devices=jax.local_devices())

  def run(shared: chex.ArrayTree, examples: chex.ArrayTree) -> chex.ArrayTree:
    devices = jax.local_device_count()
    count = len(jax.tree.leaves(examples)[0])
    fill = -count % devices

    def split(x: np.ndarray) -> np.ndarray:
      x = np.concatenate([x, np.repeat(x[-1:], fill, axis=0)]) if fill else x
      return x.reshape(devices, -1, *x.shape[1:])

    def join(x: jax.Array) -> np.ndarray:
      return np.asarray(x).reshape(-1, *x.shape[2:])[:count]

    return jax.tree.map(join, mapped(shared, jax.tree.map(split, examples)))

  return run


def sharding(
  devices: Sequence[jax.Device], *axes: str
) -> jax.sharding.NamedSharding:
  """Returns how devices share arrays: split along `axes`, or all of it on each."""
  mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def replicate(state: chex.ArrayTree) -> chex.ArrayTree:
  """Copies a state to all devices of this process, as updates return it.

  A state with another sharding would make the first update compile once more.
  """
  return jax.device_put(state, sharding(jax.local_devices()))


def memory_limit() -> int | None:
  """Returns the bytes that a local device can hold; None where JAX cannot tell."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("bytes_limit")


def differing_devices(state: chex.ArrayTree) -> list[int]:
  """Returns the devices whose copy of the state differs from device 0's.

  `pmap_update` returns one copy of the state and hides the others, so a fault
  of one device would show in worse results only.

  Args:
    state: as updates return it; every leaf of 32 bits per value.

  Returns:
    Indices into `jax.devices()`, of all processes, found by a checksum over all
    bits.
  """
  if jax.device_count() == 1:
    return []
  dummy = np.zeros(jax.local_device_count())  # pmap needs a mapped operand.
  sums = np.asarray(_checksum_function()(state, dummy))
  return np.flatnonzero(sums != sums[0]).tolist()


@functools.cache
def _checksum_function() -> Callable[..., jax.Array]:
  """Returns the compiled function to each device's checksum of a state."""
  return jax.pmap(_checksums, axis_name=AXIS, in_axes=(None, 0), out_axes=None)


def _checksums(state: chex.ArrayTree, unused_dummy: chex.Array) -> jax.Array:
  """Returns the checksums of all devices, [devices] uint32."""

  def checksum(leaf: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
    # Odd weights by position, so that two swapped values change the sum, too.
    return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1))

  sums = jnp.stack([checksum(leaf) for leaf in jax.tree.leaves(state)])
  return jax.lax.all_gather(checksum(sums), AXIS)


def with_signals(update: Callable[..., Any]) -> Callable[..., Any]:
  """Makes an update tell all processes of a signal that one has received.

  Args:
    update: as for `pmap_update`; returns a state, a dict of metrics and anything else.

  Returns:
    A function of `(state, batch, axis_name)`. The batch also holds `signal`,
    as `local_signals` makes it; so do the metrics, [] int32, where it is the
    largest number of all devices.
  """

  def run(state: Any, batch: dict[str, Any], axis_name: str) -> Any:
    examples = {name: batch[name] for name in batch if name != "signal"}
    state, metrics, *others = update(state, examples, axis_name=axis_name)
    largest = jax.lax.pmax(jnp.max(batch["signal"]), axis_name)
    return state, {**metrics, "signal": largest}, *others

  return run


def local_signals(number: int) -> np.ndarray:
  """Returns a signal's number, 0 for none, for the devices of this process."""
  return np.full((jax.local_device_count(), 1), number, np.int32)


def prefetch(
  batches: Iterable[dict[str, Any]], size: int = 2
) -> Iterator[dict[str, Any]]:
  """Moves batches to the local devices ahead of their use.

  Args:
    batches: this process' examples, [B, ...].
    size: batches on the devices in advance; two hide the transfer.

  Yields:
    The batches as [local devices, B / local devices, ...].
  """
  devices = jax.local_devices()
  by_device = sharding(devices, AXIS)

  def place(array: np.ndarray) -> jax.Array:
    return jax.device_put(
      array.reshape(len(devices), -1, *array.shape[1:]), by_device
    )

  queue: collections.deque[dict[str, Any]] = collections.deque()
  for batch in batches:
    queue.append(jax.tree.map(place, batch))
    if len(queue) > size:
      yield queue.popleft()
  yield from queue
