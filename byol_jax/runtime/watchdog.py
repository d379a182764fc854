"""Ends a process that hangs, so that the others do not wait for it for ever."""

import faulthandler
import sys
import threading
import time

import jax

from byol_jax.runtime import processes

# How many times longer the first step may take. Our choice: an hour by default,
# while XLA compiles the largest networks in minutes.
_COMPILING = 6


class Watchdog:
  """Ends this process of several if it makes no step for too long.

  A context manager that watches from a thread. The other processes notice that
  this one is gone, and end, too. One process alone is not watched.

  Args:
    seconds: the longest time between calls of `alive`; 0: no limit. The first
      call, after a step that compiles, may take `_COMPILING` times as long.
  """

  def __init__(self, seconds: float):
    self._limit = seconds * _COMPILING
    self._seconds = seconds
    self._last_step_at = time.monotonic()
    self._done = threading.Event()

  def __enter__(self) -> "Watchdog":
    if processes.is_multiprocess() and self._seconds:
      threading.Thread(target=self._watch, daemon=True).start()
    return self

  def alive(self) -> None:
    """Reports that a step was made."""
    self._last_step_at = time.monotonic()
    self._limit = self._seconds

  def _watch(self) -> None:
    while not self._done.wait(min(self._seconds / 10, 10)):
      if time.monotonic() - self._last_step_at > (limit := self._limit):
        sys.stderr.write(
          f"Process {jax.process_index()} has made no step for {limit} seconds"
          " (train.hang_seconds, or for the first step"
          f" {_COMPILING} times as long). It is here:\n"
        )
        faulthandler.dump_traceback(all_threads=True)
        processes.exit_process(processes.EXIT_RESUMABLE, alone=True)

  def __exit__(self, *exc_info) -> None:
    self._done.set()
