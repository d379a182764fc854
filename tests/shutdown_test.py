"""Signals are remembered once, and handlers come back."""

import gc
import signal
import sys
import threading
import time

import pytest

from byol_jax.runtime import shutdown


@pytest.fixture(autouse=True)
def own_handlers():
  """Restores the handlers of the process that runs the tests."""
  signums = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
  before = [signal.getsignal(signum) for signum in signums]
  # An exception that a handler raises inside JAX's garbage collection is lost.
  gc.disable()
  yield
  signal.alarm(0)
  gc.enable()
  for signum, handler in zip(signums, before, strict=True):
    signal.signal(signum, handler)


def send(signum):
  signal.raise_signal(signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_remembered_and_only_a_second_ctrl_c_acts(signum):
  shutdown.stop_on_signals()
  with shutdown.GracefulShutdown() as graceful:
    assert graceful.stop_signal(1) is None
    send(signum)
    assert graceful.stop_signal(2) == signum
    send(signal.SIGTERM)  # Some queues send it twice.
    assert graceful.stop_signal(2) == signum
    with pytest.raises(shutdown.Interrupted):
      send(signal.SIGINT)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_disturb_what_tidies_up(signum):
  shutdown.stop_on_signals()
  tidied = []

  def work():
    try:
      send(signum)
    finally:
      send(signal.SIGTERM)
      send(signal.SIGINT)
      tidied.append(True)

  with pytest.raises(shutdown.Interrupted) as info:
    work()
  assert tidied
  assert info.value.signum == signum


def test_a_signal_that_python_drops_acts_a_little_later(monkeypatch):
  monkeypatch.setattr(shutdown, "_AGAIN_SECONDS", 1)
  printed = []
  monkeypatch.setattr(sys, "unraisablehook", printed.append)
  shutdown._hide_dropped.cache_clear()
  shutdown.stop_on_signals()

  def drop(phase, info):
    del info
    if phase == "start":
      gc.callbacks.remove(drop)
      send(signal.SIGTERM)

  def work():
    gc.callbacks.append(drop)
    gc.collect()
    time.sleep(5)

  with pytest.raises(shutdown.Interrupted) as info:
    work()
  assert info.value.signum == signal.SIGTERM
  assert not printed


def test_signals_are_ignored_once_the_program_ends():
  shutdown.stop_on_signals()
  with pytest.raises(shutdown.Interrupted):
    send(signal.SIGTERM)
  shutdown.ignore_signals()
  for signum in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
    send(signum)


def test_the_former_handlers_are_back_afterwards():
  former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
  with shutdown.GracefulShutdown():
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
  signal.signal(signal.SIGTERM, former)


def test_an_interruption_passes_handlers_of_ordinary_errors():
  shutdown.stop_on_signals()

  def work():
    try:
      send(signal.SIGTERM)
    except Exception:
      pytest.fail("`except Exception` caught the interruption.")

  with pytest.raises(shutdown.Interrupted) as info:
    work()
  assert info.value.signum == signal.SIGTERM


@pytest.mark.parametrize(
  ("step", "saved"),
  [(None, "SIGTERM; finished work"), (7, "SIGTERM after step 7, which")],
)
def test_an_interruption_says_what_is_saved_and_how_to_resume(step, saved):
  message = str(shutdown.Interrupted(signal.SIGTERM, step))
  assert message == (
    f"Stopped by {saved} is saved; run the same command again to resume."
  )


def test_a_signal_in_several_processes_goes_by_way_of_jax(monkeypatch):
  """JAX's handler of SIGTERM sends the others the step to stop after."""
  told = []
  signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
  monkeypatch.setattr(shutdown.processes, "is_multiprocess", lambda: True)
  monkeypatch.setattr(
    shutdown.multihost_utils,
    "reached_preemption_sync_point",
    lambda step: bool(told) and step == 9,
  )
  with shutdown.GracefulShutdown() as graceful:
    send(signal.SIGINT)
    assert told == ["SIGTERM"]
    assert graceful.stop_signal(8) is None
    assert graceful.stop_signal(9) == signal.SIGTERM


def test_another_thread_leaves_the_handlers_alone():
  def work():
    with shutdown.GracefulShutdown() as graceful:
      found.append(graceful.stop_signal(1))
      found.append(signal.getsignal(signal.SIGTERM))

  found = []
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [None, signal.getsignal(signal.SIGTERM)]
