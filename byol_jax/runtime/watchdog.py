"""Ends a process that hangs, so that the others do not wait for it for ever."""

import faulthandler
import sys
import threading
import time

import jax

from byol_jax.runtime import processes


class Watchdog:
  """Ends this process of several if it makes no step for too long.

  A context manager that watches from a thread. The other processes notice that
  this one is gone, and end, too. The time counts from the first call of
  `alive`, since the first step compiles. One process alone is not watched.

  Args:
    seconds: the longest time between calls of `alive`; 0: no limit.
  """

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._last_step_at: float | None = None
    self._done = threading.Event()

  def __enter__(self) -> "Watchdog":
    if processes.is_multiprocess() and self._seconds:
      threading.Thread(target=self._watch, daemon=True).start()
    return self

  def alive(self) -> None:
    """Reports that a step was made."""
    self._last_step_at = time.monotonic()

  def _watch(self) -> None:
    while not self._done.wait(min(self._seconds / 10, 10)):
      last = self._last_step_at
      if last is not None and time.monotonic() - last > self._seconds:
        sys.stderr.write(
          f"Process {jax.process_index()} has made no step for"
          f" {self._seconds} seconds (train.hang_seconds). It is here:\n"
        )
        faulthandler.dump_traceback(all_threads=True)
        processes.exit_process(processes.EXIT_RESUMABLE, alone=True)

  def __exit__(self, *exc_info) -> None:
    self._done.set()
