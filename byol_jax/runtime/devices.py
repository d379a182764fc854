"""Everything that knows of several devices; the only user of `pmap`."""

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

AXIS = "devices"


def check_batch_size(batch_size: int, microbatches: int) -> None:
  """Raises `UserError` unless a batch divides by devices and micro-batches."""
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


def pmap_update(update: Callable[..., Any]) -> Callable[..., Any]:
  """Runs `update(state, batch, axis_name)` on all devices as one.

  The state goes in and comes out without a device axis and its memory is used
  again (donated): do not touch it after the call. Give the first call a state
  from `replicate`. The batch has a leading device axis, see `prefetch`.
  """

  def on_device(state: chex.ArrayTree, batch: chex.ArrayTree) -> Any:
    return update(state, batch, axis_name=AXIS)

  return jax.pmap(
    on_device,
    axis_name=AXIS,
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
  )


def mean_over_devices(
  tree: chex.ArrayTree, axis_name: str | None
) -> chex.ArrayTree:
  """The means of a tree's leaves over an axis of devices, if there is one.

  CPUs average leaf by leaf, which between processes takes each some milliseconds
  (docs/scaling.md), so there all leaves go as one. Compilers for accelerators
  bundle them themselves, and send some while others are being computed.
  """
  if axis_name is None:
    return tree
  if jax.default_backend() != "cpu":
    return jax.lax.pmean(tree, axis_name)
  flat, unflattened = flatten_util.ravel_pytree(tree)
  return unflattened(jax.lax.pmean(flat, axis_name))


def pmap_examples(
  fn: Callable[..., chex.ArrayTree],
) -> Callable[..., chex.ArrayTree]:
  """Runs `fn(shared, examples)` with the examples split over local devices.

  Args:
    fn: maps any pytree and one of [b, ...] to one of [b, ...], each example by
      itself.

  Returns:
    A function of the same arguments, to NumPy arrays, for any number of
    examples, the last batch of a split too: it is filled up to divide, and the
    fill is cut off again.
  """
  mapped = jax.pmap(fn, in_axes=(None, 0))

  def run(shared: chex.ArrayTree, examples: chex.ArrayTree) -> chex.ArrayTree:
    devices = jax.local_device_count()
    count = len(jax.tree.leaves(examples)[0])
    fill = -count % devices

    def split(x):
      x = np.concatenate([x, np.repeat(x[-1:], fill, axis=0)]) if fill else x
      return x.reshape(devices, -1, *x.shape[1:])

    def join(x):
      return np.asarray(x).reshape(-1, *x.shape[2:])[:count]

    return jax.tree.map(join, mapped(shared, jax.tree.map(split, examples)))

  return run


def _sharding(devices: Sequence[jax.Device], *axes: str):
  mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def replicate(state: chex.ArrayTree) -> chex.ArrayTree:
  """The state on all devices of this process, as updates return it.

  An update that is given it in another way is compiled once for that, and once
  more for what it returned.
  """
  return jax.device_put(state, _sharding(jax.local_devices()))


def differing_devices(state: chex.ArrayTree) -> list[int]:
  """The devices, of all processes, whose copy of the state is not device 0's.

  `pmap_update` hands back one copy and keeps the others to itself: what went
  wrong on a device would show in nothing but worse results.

  Args:
    state: as updates return it.

  Returns:
    Their indices among `jax.devices()`, by a checksum over all bits.
  """
  each = np.zeros(jax.local_device_count())  # What is mapped over, to no end.
  sums = np.asarray(_checksums(state, each))
  return np.flatnonzero(sums != sums[0]).tolist()


@functools.partial(jax.pmap, axis_name=AXIS, in_axes=(None, 0), out_axes=None)
def _checksums(state: chex.ArrayTree, unused_each: chex.Array) -> chex.Array:
  """[devices] uint32, in all of them."""

  def checksum(leaf):
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
    # By their place, so that two values in each other's show.
    return jnp.sum(bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1))

  sums = jnp.stack([checksum(leaf) for leaf in jax.tree.leaves(state)])
  return jax.lax.all_gather(checksum(sums), AXIS)


def prefetch(
  batches: Iterable[dict[str, Any]], size: int = 2
) -> Iterator[dict[str, Any]]:
  """Moves batches to the local devices ahead of their use.

  Args:
    batches: of this process' examples, [B, ...].
    size: how many lie on the devices in advance; two hide the transfer.

  Yields:
    The batches as [local devices, B / local devices, ...].
  """
  devices = jax.local_devices()
  sharding = _sharding(devices, AXIS)

  def place(array: np.ndarray) -> jax.Array:
    return jax.device_put(
      array.reshape(len(devices), -1, *array.shape[1:]), sharding
    )

  queue: collections.deque[dict[str, Any]] = collections.deque()
  for batch in batches:
    queue.append(jax.tree.map(place, batch))
    if len(queue) > size:
      yield queue.popleft()
  yield from queue
