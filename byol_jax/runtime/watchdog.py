"""Ends a process that hangs, so that the others do not wait for ever."""

import faulthandler
import sys
import threading
import time

import jax

from byol_jax.runtime import processes


class Watchdog:
  """While entered, ends this process, of several, when it seems to hang.

  The others then lose it and end, too, instead of waiting for it for ever.

  Args:
    seconds: without a call of `alive`, counted from the first one: the first
      step compiles. 0: any number.
  """

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._seen: float | None = None
    self._done = threading.Event()

  def __enter__(self) -> "Watchdog":
    if processes.is_multiprocess() and self._seconds:
      threading.Thread(target=self._watch, daemon=True).start()
    return self

  def alive(self) -> None:
    """Says that a step was made."""
    self._seen = time.monotonic()

  def _watch(self) -> None:
    while not self._done.wait(min(self._seconds / 10, 10)):
      if self._seen and time.monotonic() - self._seen > self._seconds:
        sys.stderr.write(
          f"Process {jax.process_index()} has made no step for"
          f" {self._seconds} seconds (train.hang_seconds), here:\n"
        )
        faulthandler.dump_traceback(all_threads=True)
        processes.exit_process(processes.EXIT_RESUMABLE, alone=True)

  def __exit__(self, *exc_info) -> None:
    self._done.set()
