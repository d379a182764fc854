"""Several processes that train as one: how they meet, agree and end.

Only the first of them writes to the workdir, which need not be shared.
"""

import importlib.util
import os
import pathlib
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from byol_jax import errors
from byol_jax.runtime import cpu

T = TypeVar("T")

# The exit code of what is to be started again: sysexits' "temporary failure".
EXIT_RESUMABLE = os.EX_TEMPFAIL

# A process that is not heard of for so long is taken for dead. JAX's 100 seconds
# would let those of a dead host wait for minutes.
_HEARTBEAT_SECONDS = 30
# Another process may still be installing, or waiting for its node.
_MEET_SECONDS = 300  # JAX's own.
# How long to wait for those that leave for the same reason.
_PART_SECONDS = 20

# What tells a process under a launcher how many were started with it. Not
# SLURM_NTASKS, which a batch script has outside of srun, too.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def _are_launched() -> bool:
  """Whether `jax.distributed` can find the other processes by itself."""
  on_tpu = importlib.util.find_spec("libtpu") is not None and any(
    pathlib.Path("/dev").glob(pattern) for pattern in ("accel*", "vfio/*")
  )
  return on_tpu or any(int(os.environ.get(name, "1")) > 1 for name in _COUNTS)


def initialize(coordinator: str, count: int | None, index: int | None) -> None:
  """Meets the other processes of a run, if there are any.

  Found by itself under srun and mpirun, and on TPUs. To be called before JAX is
  first used.

  Args:
    coordinator: HOST:PORT at which the first process is to be met; empty if that
      is to be found out.
    count: of processes; None likewise.
    index: of this one, from 0; None likewise.

  Raises:
    UserError: if only some are given, or they cannot be. If the others do not
      come, JAX ends the process with a message of its own.
  """
  given = (bool(coordinator), count is not None, index is not None)
  if any(given) and not all(given):
    raise errors.UserError(
      f"--coordinator={coordinator} --num_processes={count}"
      f" --process_id={index} belong together; give all three or, under srun,"
      " mpirun and on TPUs, none."
    )
  if count is not None and index is not None and not 0 <= index < count:
    raise errors.UserError(
      f"--process_id={index} must be from 0 to {count - 1}, as"
      f" --num_processes={count}."
    )
  if not (any(given) or _are_launched()):
    return
  cpu.raise_collective_timeout()
  try:
    jax.distributed.initialize(
      coordinator or None,
      count,
      index,
      initialization_timeout=_MEET_SECONDS,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      cluster_detection_method="deactivate" if any(given) else None,
    )
  except (RuntimeError, ValueError) as error:
    if not any(given):
      logging.warning("No other processes were found: %s", error)
      return
    raise errors.UserError(
      f"The other processes were not met: {str(error).splitlines()[0]}; check"
      " that all were started and reach the first one."
    ) from error


def is_multiprocess() -> bool:
  """Whether this is not the only process."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
  """Whether this is the process that writes and speaks for all."""
  return not is_multiprocess() or jax.process_index() == 0


def broadcast_from_primary(make: Callable[[], T]) -> T:
  """What only the first process makes, bit for bit in all of them.

  Args:
    make: called in the first process; its arrays become NumPy's in several.

  Raises:
    UserError: in all processes, if `make` does.
  """
  if not is_multiprocess():
    return make()
  parts: list[np.ndarray] = []
  mistake = None
  if is_primary():
    try:
      parts = _packed(make())
    except errors.UserError as error:
      mistake = error
  number = int(multihost_utils.broadcast_one_to_all(np.array(len(parts))))
  if not number:
    raise mistake or errors.UserError("the first process says what is wrong.")
  sizes = np.array([len(part) for part in parts] or [0] * number)
  sizes = multihost_utils.broadcast_one_to_all(sizes)
  received = multihost_utils.broadcast_one_to_all(
    parts or [np.zeros(size, np.uint8) for size in sizes]
  )
  data, *arrays = (np.asarray(part).data for part in received)
  return pickle.loads(data, buffers=arrays)


def _packed(made: object) -> list[np.ndarray]:
  """Bytes that say what something is, and after them those of its arrays."""
  buffers: list[pickle.PickleBuffer] = []
  data = pickle.dumps(
    jax.device_get(made), protocol=5, buffer_callback=buffers.append
  )
  contents: list[Any] = [data, *(buffer.raw() for buffer in buffers)]
  return [np.frombuffer(content, np.uint8) for content in contents]


def barrier() -> None:
  """Waits until all processes are here."""
  all_gather_concat(np.zeros(1))


def all_gather_concat(part: np.ndarray) -> np.ndarray:
  """What all processes have, one after the other, in all of them.

  Args:
    part: [n, ...]; n may differ between processes.

  Returns:
    [N, ...], where N is the sum of all n.
  """
  if not is_multiprocess():
    return part
  counts = multihost_utils.process_allgather(np.array(len(part)))
  fill = np.zeros((max(counts) - len(part), *part.shape[1:]), part.dtype)
  parts = multihost_utils.process_allgather(np.concatenate([part, fill]))
  return np.concatenate([x[:n] for x, n in zip(parts, counts, strict=True)])


def exit_process(code: int, *, alone: bool = False) -> NoReturn:
  """Ends this process.

  Of several, those that leave for the same reason part in order: JAX ends one
  that still runs when the first is gone. One that the others do not follow, as
  they wait for its part of a computation, leaves after `_PART_SECONDS`.

  Args:
    code: its exit code.
    alone: the others are known not to follow.
  """
  if is_multiprocess():
    if not alone:
      parting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
      parting.start()
      parting.join(_PART_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)
