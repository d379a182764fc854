"""Being told to stop, by Ctrl-C or by a queue, without losing anything."""

import os
import signal
from typing import Any, NoReturn

from jax.experimental import multihost_utils

from byol_jax.runtime import processes


class Interrupted(BaseException):  # No `except Exception` is meant for it.
  """The work was stopped by a signal, after saving; `signum` says which."""

  def __init__(self, signum: int, step: int | None = None):
    what = "; what was done" if step is None else f" after step {step}, which"
    super().__init__(
      f"Stopped by {signal.Signals(signum).name}{what} is saved; run the same"
      " command again to go on."
    )
    self.signum = signum


def stop_on_sigterm() -> None:
  """Makes SIGTERM raise `Interrupted` wherever the program is."""

  def stop(signum: int, frame: Any) -> NoReturn:
    del frame
    raise Interrupted(signum)

  signal.signal(signal.SIGTERM, stop)


class GracefulShutdown:
  """While entered, remembers SIGTERM and SIGINT; a second one acts as before.

  Of several processes, all are told what one of them receives, by JAX, whose
  handler of SIGTERM is there since they met and heeds no second one.
  """

  def __enter__(self) -> "GracefulShutdown":
    self._received: int | None = None
    handlers = {signal.SIGINT: self._remember, signal.SIGTERM: self._remember}
    if processes.is_multiprocess():
      handlers = {signal.SIGINT: self._hand_on}
    self._before = {
      signum: signal.signal(signum, handler)
      for signum, handler in handlers.items()
    }
    return self

  def stop_signal(self, step: int) -> int | None:
    """The signal to stop for, None without one; of several processes, the step
    after which all of them learn of it is the same."""
    if processes.is_multiprocess():
      told = multihost_utils.reached_preemption_sync_point(step)
      return signal.SIGTERM if told else None
    return self._received

  def _remember(self, signum: int, frame: Any) -> None:
    del frame
    self._received = signum
    self._restore()

  def _hand_on(self, signum: int, frame: Any) -> None:
    del signum, frame
    os.kill(os.getpid(), signal.SIGTERM)
    self._restore()

  def _restore(self) -> None:
    for signum, handler in self._before.items():
      signal.signal(signum, handler)

  def __exit__(self, *exc_info) -> None:
    self._restore()
