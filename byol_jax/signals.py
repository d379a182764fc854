"""Being told to stop, by Ctrl-C or by a queue, without losing anything."""

import signal
from typing import Any


class Interrupted(Exception):
  """Training was stopped by a signal, after saving; `signum` says which."""

  def __init__(self, signum: int, step: int):
    super().__init__(
      f"Stopped by {signal.Signals(signum).name} after step {step}, which is"
      " saved; run the same command again to go on."
    )
    self.signum = signum


class Remembered:
  """While entered, remembers SIGTERM and SIGINT; a second one kills as usual.

  Attributes:
    received: the signal's number, None before one came.
  """

  def __enter__(self) -> "Remembered":
    self.received: int | None = None
    self._before = {
      signum: signal.signal(signum, self._remember)
      for signum in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def _remember(self, signum: int, frame: Any) -> None:
    del frame
    self.received = signum
    self._restore()

  def _restore(self) -> None:
    for signum, handler in self._before.items():
      signal.signal(signum, handler)

  def __exit__(self, *exc_info) -> None:
    self._restore()
