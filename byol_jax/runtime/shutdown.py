"""Stops on Ctrl-C or SIGTERM, which queues send, without losing work."""

import functools
import signal
import sys
import threading
from typing import Any

import jax

from byol_jax import errors
from byol_jax.runtime import uncaught

# Our choice: longer than most endings, which the repetition then never sees.
_AGAIN_SECONDS = 5
# Steps before the latest whose signals are not read yet, as reading waits for the
# device. Our choice: what `meter` leaves in flight, so that nothing else waits.
_LATE_STEPS = 2


class Interrupted(BaseException):  # `except Exception` must not catch it.
  """A signal stopped the work, which is saved.

  Args:
    signum: the signal.
    step: the last step, which is saved; None outside training.

  Attributes:
    signum: the signal.
  """

  def __init__(self, signum: int, step: int | None = None):
    saved = (
      "; finished work is saved"
      if step is None
      else f" after step {step}, which is saved"
    )
    super().__init__(
      f"Stopped by {signal.Signals(signum).name}{saved}; run the same command"
      " again to resume."
    )
    self.signum = signum


def stop_on_signals() -> None:
  """Makes SIGTERM and Ctrl-C raise `Interrupted` wherever the program is."""
  _hide_dropped()
  for signum in (signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, _stop)


@functools.cache  # Once for the whole program.
def _hide_dropped() -> None:
  """Keeps Python from printing an `Interrupted` that it drops; see `_stop`."""
  uncaught.hide(lambda error: isinstance(error, Interrupted))


def ignore_signals() -> None:
  """Lets the program end undisturbed, which takes seconds from here."""
  for signum in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
    signal.signal(signum, signal.SIG_IGN)


def is_ending() -> bool:
  """Returns whether an error that ends the program is on its way.

  Blocks such as `finally` tidy up then, which another error would cut short.
  """
  error = sys.exception()
  while error is not None:
    if isinstance(error, Interrupted | errors.UserError):
      return True
    error = error.__context__
  return False


def _stop(signum: int, frame: Any) -> None:
  """Raises `Interrupted`, unless the program is ending.

  Python drops an error that is raised while it collects garbage or finalises an
  object, so the error is raised again until `ignore_signals`.
  """
  del frame
  signal.signal(signal.SIGALRM, lambda *_: _stop(signum, None))
  signal.alarm(_AGAIN_SECONDS)
  if not is_ending():
    raise Interrupted(signum)


class GracefulShutdown:
  """Remembers SIGTERM and SIGINT, so that a training loop can save first.

  A context manager. Queues may send SIGTERM twice, so only a second Ctrl-C has
  its former effect, for people in a hurry. A signal that came too late for the
  last step has its former effect after the block.

  In a thread other than the main one, where Python handles no signals, the
  handlers stay as they are.

  Attributes:
    received: the number of the signal that this process has received, or 0.
  """

  received = 0

  def __enter__(self) -> "GracefulShutdown":
    self._told: list[jax.Array] = []
    handlers = {signal.SIGINT: self._remember, signal.SIGTERM: self._remember}
    if threading.current_thread() is not threading.main_thread():
      handlers = {}
    self._former = {
      signum: signal.signal(signum, handler)
      for signum, handler in handlers.items()
    }
    return self

  def stop_signal(self, told: jax.Array | None, *, is_last: bool) -> int:
    """Returns the signal to stop for after a step, 0 without one.

    Args:
      told: with several processes, the number of the signal that the step told all
        of them (`devices.with_signals`), so that they stop after the same one.
        None with one process.
      is_last: whether no step follows.
    """
    if told is None:
      return self.received
    self._told.append(told)
    stop = 0
    while not stop and len(self._told) > (0 if is_last else _LATE_STEPS):
      stop = int(self._told.pop(0))
    return stop

  def _remember(self, signum: int, frame: Any) -> None:
    del frame
    self.received = self.received or signum
    signal.signal(signal.SIGINT, self._former[signal.SIGINT])

  def __exit__(self, kind: type[BaseException] | None, *unused) -> None:
    for signum, handler in self._former.items():
      signal.signal(signum, handler)
    if kind is None and self.received:
      signal.raise_signal(self.received)
