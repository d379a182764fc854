"""Everything that knows of several devices; the only user of `pmap`."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import chex
import jax
import numpy as np

from byol_jax import errors

AXIS = "devices"

# Each device has a copy of the state and joins in every mean over devices,
# which a handful of images would not pay for. A guess; two cores were measured.
_MIN_IMAGES_PER_CORE = 16


def use_cpu_cores(batch_size: int) -> None:
  """Makes a machine without accelerators count as several devices.

  XLA keeps two cores busier with two half batches than with one whole, so each
  core becomes a device, as far as the batch divides and is not cut too fine. Has an effect only before
  JAX is first used, and none on GPUs and TPUs, nor where the user has chosen a
  number by XLA_FLAGS or JAX_NUM_CPU_DEVICES.

  Args:
    batch_size: over all devices.
  """
  chosen = os.environ.get("XLA_FLAGS", "") + " ".join(os.environ)
  if "device_count" in chosen or "JAX_NUM_CPU_DEVICES" in chosen:
    return
  most = min(_usable_cores(), max(batch_size // _MIN_IMAGES_PER_CORE, 1))
  devices = max(n for n in range(1, most + 1) if batch_size % n == 0)
  jax.config.update("jax_num_cpu_devices", devices)


def _usable_cores() -> int:
  if hasattr(os, "sched_getaffinity"):  # Not on macOS.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def check_batch_size(batch_size: int) -> None:
  """Raises `UserError` unless the batch divides by all devices."""
  devices = jax.device_count()
  if batch_size % devices:
    lower = batch_size // devices * devices
    remedy = " or ".join(str(n) for n in (lower, lower + devices) if n)
    raise errors.UserError(
      f"train.batch_size={batch_size} must be a multiple of the {devices}"
      f" devices; try {remedy}."
    )


def pmap_update(update: Callable[..., Any]) -> Callable[..., Any]:
  """Runs `update(state, batch, axis_name)` on all devices as one.

  The state goes in and comes out without a device axis and its memory is used
  again (donated): do not touch it after the call. The batch has a leading
  device axis, see `prefetch`.
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


def pmap_examples(fn: Callable[..., chex.Array]) -> Callable[..., np.ndarray]:
  """Runs `fn(shared, examples)` with the examples split over local devices.

  Args:
    fn: maps (any pytree, [b, ...]) to [b, ...], each example by itself.

  Returns:
    A function of the same arguments for any number of examples, the last batch
    of a split too: it is filled up to divide, and the fill is cut off again.
  """
  mapped = jax.pmap(fn, in_axes=(None, 0))

  def run(shared: chex.ArrayTree, examples: np.ndarray) -> np.ndarray:
    devices = jax.local_device_count()
    fill = -len(examples) % devices
    filled = np.concatenate([examples, np.repeat(examples[-1:], fill, axis=0)])
    out = mapped(shared, filled.reshape(devices, -1, *filled.shape[1:]))
    return np.asarray(out).reshape(len(filled), *out.shape[2:])[: len(examples)]

  return run


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
  mesh = jax.sharding.Mesh(np.asarray(devices), (AXIS,))
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

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
