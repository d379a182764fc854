"""Stops on Ctrl-C or SIGTERM, which queues send, without losing work."""

import functools
import os
import signal
import sys
import threading
from typing import Any

from jax.experimental import multihost_utils

from byol_jax import errors
from byol_jax.runtime import processes, uncaught

# Our choice: longer than most endings, which the repetition then never sees.
_AGAIN_SECONDS = 5


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
  its former effect, for people in a hurry. In a run of several processes a
  signal to one of them stops all after the same step. JAX tells them about it:
  its handler of SIGTERM is installed since `processes.initialize`, and ignores
  a second one. SIGINT is therefore sent on as SIGTERM.

  In a thread other than the main one, where Python handles no signals, the
  handlers stay as they are.
  """

  def __enter__(self) -> "GracefulShutdown":
    self._received: int | None = None
    handlers = {signal.SIGINT: self._remember, signal.SIGTERM: self._remember}
    if processes.is_multiprocess():
      handlers = {signal.SIGINT: self._send_sigterm}
    if threading.current_thread() is not threading.main_thread():
      handlers = {}
    self._former = {
      signum: signal.signal(signum, handler)
      for signum, handler in handlers.items()
    }
    return self

  def stop_signal(self, step: int) -> int | None:
    """Returns the signal to stop for after a step, None without one.

    Args:
      step: just done. All processes must call this for every step.

    Returns:
      The same in all processes: SIGTERM there, whichever one of them received.
    """
    if processes.is_multiprocess():
      stops = multihost_utils.reached_preemption_sync_point(step)
      return signal.SIGTERM if stops else None
    return self._received

  def _remember(self, signum: int, frame: Any) -> None:
    del frame
    self._received = self._received or signum
    signal.signal(signal.SIGINT, self._former[signal.SIGINT])

  def _send_sigterm(self, signum: int, frame: Any) -> None:
    del signum, frame
    os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGINT, self._former[signal.SIGINT])

  def __exit__(self, *exc_info) -> None:
    for signum, handler in self._former.items():
      signal.signal(signum, handler)
