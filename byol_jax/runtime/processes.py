"""Several processes that train as one: start, communication and end.

The primary process, that of index 0, alone writes to the workdir, which the
others need not see. With one process every function here is trivial.
"""

import contextlib
import importlib.util
import ipaddress
import os
import pathlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from byol_jax import errors
from byol_jax.runtime import cpu, packing

T = TypeVar("T")

# The exit code that asks for the same command again: sysexits' "temporary
# failure".
EXIT_RESUMABLE = os.EX_TEMPFAIL

# A process without a heartbeat for this long counts as dead. With JAX's 100
# seconds the others would wait for minutes after a host has died.
_HEARTBEAT_SECONDS = 30
# How long the others may take to start, as they may still install packages or
# wait for a node. JAX's own default.
_INITIALIZATION_SECONDS = 300
# How long to wait at the end for processes that end for the same reason. Our
# choice: saving a checkpoint, the last thing they do, takes seconds.
_SHUTDOWN_SECONDS = 20

# The environment variables in which launchers put the number of processes. Not
# SLURM_NTASKS, which a batch script has outside srun, too.
_COUNT_VARIABLES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


# The longest wait for the other processes in `all_gather_concat`; 0: no limit.
_hang_seconds = 0.0


def initialize(
  coordinator_address: str,
  num_processes: int | None,
  process_id: int | None,
  hang_seconds: float = 0,
) -> None:
  """Connects the processes of a run, if there are several.

  Call it before JAX is first used. Under srun and mpirun, and on TPUs, JAX
  finds the other processes by itself. If they do not come, JAX ends this
  process with a message of its own.

  Args:
    coordinator_address: HOST:PORT at which the primary process listens; empty
      to find it automatically.
    num_processes: None to find it automatically.
    process_id: index of this process, from 0; None likewise.
    hang_seconds: after this long in `all_gather_concat` this process ends, since
      another one hangs; 0: never.

  Raises:
    UserError: only some of the arguments are given, or they are contradictory,
      or the connection fails.
  """
  global _hang_seconds
  _hang_seconds = hang_seconds
  is_given = _check_flags(coordinator_address, num_processes, process_id)
  if not (is_given or _are_launched()):
    return
  cpu.raise_collective_timeout()
  # Its handler of SIGTERM would name a step at which all stop, which never comes
  # if training ends before. `devices.with_signals` tells the processes instead.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      coordinator_address or None,
      num_processes,
      process_id,
      initialization_timeout=_INITIALIZATION_SECONDS,
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      coordinator_bind_address=_bind_address(coordinator_address),
      cluster_detection_method="deactivate" if is_given else None,
    )
  except (RuntimeError, ValueError) as error:
    if not is_given:
      logging.warning("No other processes were found: %s", error)
      return
    raise errors.UserError(
      "The processes could not be connected:"
      f" {str(error).splitlines()[0]}; check that all were started and can"
      f" reach --coordinator={coordinator_address}."
    ) from error


def _check_flags(
  coordinator_address: str, num_processes: int | None, process_id: int | None
) -> bool:
  """Returns whether the flags name the processes; see `initialize`."""
  is_given = (
    bool(coordinator_address),
    num_processes is not None,
    process_id is not None,
  )
  if any(is_given) and not all(is_given):
    raise errors.UserError(
      f"--coordinator={coordinator_address} --num_processes={num_processes}"
      f" --process_id={process_id} belong together; give all three or, under"
      " srun, mpirun and on TPUs, none."
    )
  if (
    num_processes is not None
    and process_id is not None
    and not 0 <= process_id < num_processes
  ):
    raise errors.UserError(
      f"--process_id={process_id} must be from 0 to {num_processes - 1}, as"
      f" --num_processes={num_processes}."
    )
  return any(is_given)


def _bind_address(coordinator_address: str) -> str | None:
  """Returns where the primary process listens; None for JAX's choice.

  JAX listens on all interfaces unless JAX_COORDINATOR_BIND_ADDRESS is set. Here
  an IP address of this machine opens no other one. A name does not count, as
  the other machines may resolve it to another address than this one does.
  """
  host, _, _ = coordinator_address.rpartition(":")
  if "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
    return None
  try:
    address = ipaddress.ip_address(host.strip("[]"))
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family) as test:
      test.bind((str(address), 0))  # Fails for the address of another machine.
  except (ValueError, OSError):
    return None
  return coordinator_address


def _are_launched() -> bool:
  """Returns whether JAX can find the other processes by itself."""
  on_tpu = importlib.util.find_spec("libtpu") is not None and any(
    pathlib.Path("/dev").glob(pattern) for pattern in ("accel*", "vfio/*")
  )
  return on_tpu or any(
    int(os.environ.get(name, "1")) > 1 for name in _COUNT_VARIABLES
  )


def is_multiprocess() -> bool:
  """Returns whether the run has more than one process."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
  """Returns whether this process writes files and prints for all."""
  return not is_multiprocess() or jax.process_index() == 0


def broadcast_from_primary(make: Callable[[], T]) -> T:
  """Returns the primary's `make()`, bit for bit the same in all processes.

  Args:
    make: called in the primary process only. `packing.pack` says what it may
      return; with several processes, JAX arrays in it become NumPy arrays.

  Raises:
    UserError: in all processes, if `make` raises it.
  """
  if not is_multiprocess():
    return make()
  parts: list[np.ndarray] = []
  error = None
  if is_primary():
    try:
      parts = packing.pack(make())
    except errors.UserError as raised:
      error = raised
  return packing.unpack(_broadcast(parts, error))


def primary_first(make: Callable[[], T]) -> T:
  """Returns `make()`, which the others call after the primary has ended it.

  For work that the primary does once for all, such as preparing a data set,
  where the others then find the result on disk.

  Args:
    make: called in every process.

  Raises:
    UserError: in all processes, if the primary's `make` raises it.
  """
  if not is_multiprocess():
    return make()
  if not is_primary():
    _broadcast([], None)
    return make()
  error = None
  try:
    made = make()
  except errors.UserError as raised:
    error = raised
  _broadcast(packing.pack(None) if error is None else [], error)
  return made


def _broadcast(
  parts: Sequence[np.ndarray], error: errors.UserError | None
) -> list[np.ndarray]:
  """Returns the primary's byte strings in all processes.

  Args:
    parts: in the primary, at least one [n] uint8, or none to report `error`.
    error: raised in the primary; the others raise one that points to it.
  """
  count = int(multihost_utils.broadcast_one_to_all(np.array(len(parts))))
  if not count:
    raise error or errors.UserError("see the error of the primary process.")
  sizes = np.array([len(part) for part in parts] or [0] * count)
  sizes = multihost_utils.broadcast_one_to_all(sizes)
  received = multihost_utils.broadcast_one_to_all(
    list(parts) or [np.zeros(size, np.uint8) for size in sizes]
  )
  return [np.asarray(part) for part in received]


def barrier() -> None:
  """Returns once all processes have called it."""
  all_gather_concat(np.zeros(1))


def all_gather_concat(part: np.ndarray) -> np.ndarray:
  """Concatenates the arrays of all processes, in the order of their indices.

  All call it at about the same time: a process that waits for longer than
  `train.hang_seconds` ends.

  Args:
    part: [n, ...]; n may differ between processes.

  Returns:
    [N, ...] in every process, where N is the sum of all n.
  """
  if not is_multiprocess():
    return part
  with _limited_wait():
    counts = multihost_utils.process_allgather(np.array(len(part)))
    fill = np.zeros((max(counts) - len(part), *part.shape[1:]), part.dtype)
    parts = multihost_utils.process_allgather(np.concatenate([part, fill]))
  return np.concatenate([x[:n] for x, n in zip(parts, counts, strict=True)])


@contextlib.contextmanager
def _limited_wait() -> Iterator[None]:
  """Ends this process if its block takes longer than `_hang_seconds`."""

  def give_up() -> None:
    sys.stderr.write(
      f"Process {jax.process_index()}: another process hangs: its part did not"
      f" come for {_hang_seconds} seconds (train.hang_seconds); run the same"
      " command again to resume.\n"
    )
    exit_process(EXIT_RESUMABLE, alone=True)

  if not _hang_seconds:
    yield
    return
  timer = threading.Timer(_hang_seconds, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def exit_process(code: int, *, alone: bool = False) -> NoReturn:
  """Ends this process.

  JAX aborts a process that still runs when the primary has gone. Processes that
  end for the same reason therefore disconnect together first. A process that
  the others do not follow, since they wait for its part of a computation, ends
  after `_SHUTDOWN_SECONDS`.

  Args:
    code: exit code.
    alone: whether the others are known not to follow, which spares the wait.
  """
  if is_multiprocess():
    if not alone:
      shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
      shutdown.start()
      shutdown.join(_SHUTDOWN_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Exit handlers would wait for the other processes.
  sys.exit(code)
