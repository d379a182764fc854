"""Signals are remembered once, and handlers come back."""

import gc
import signal
import sys
import threading
import time

import pytest

from byol_jax.runtime import shutdown
from tests import command_line


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
    assert graceful.received == 0
    send(signum)
    assert graceful.received == signum
    send(signal.SIGTERM)  # Some queues send it twice.
    assert graceful.stop_signal(None, is_last=False) == signum
    with pytest.raises(shutdown.Interrupted):
      send(signal.SIGINT)
    graceful.received = 0  # It has acted.


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


def test_what_steps_tell_of_signals_is_read_late_and_at_the_end_in_full():
  with shutdown.GracefulShutdown() as graceful:
    told = [0, 0, 0, signal.SIGTERM, 0]
    stops = [graceful.stop_signal(told[i], is_last=False) for i in range(5)]
    assert stops == [0, 0, 0, 0, 0]
    assert graceful.stop_signal(0, is_last=False) == signal.SIGTERM
    assert graceful.stop_signal(signal.SIGINT, is_last=True) == signal.SIGINT


def test_a_signal_after_the_last_step_acts_after_the_block():
  shutdown.stop_on_signals()

  def train():
    with shutdown.GracefulShutdown() as graceful:
      assert graceful.stop_signal(None, is_last=True) == 0
      send(signal.SIGTERM)

  with pytest.raises(shutdown.Interrupted) as info:
    train()
  assert info.value.signum == signal.SIGTERM


# Trains for ten steps; the argument says after which one process 1 gets SIGTERM.
_STEPS = """
import signal, sys
import numpy as np
from byol_jax.runtime import devices, processes, shutdown

address, index, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shutdown.stop_on_signals()
processes.initialize(address, 2, index)
update = devices.pmap_update(devices.with_signals(
    lambda state, batch, axis_name: (state + 1, {})))
state, last = np.zeros((), np.int32), 0
try:
  with shutdown.GracefulShutdown() as graceful:
    for step in range(1, 11):
      batch = {"signal": devices.local_signals(graceful.received)}
      state, row = update(state, batch)
      stop = graceful.stop_signal(row["signal"], is_last=step == 10)
      last = int(state)
      if step == at and index == 1:
        signal.raise_signal(signal.SIGTERM)
      if stop:
        raise shutdown.Interrupted(stop, step)
  print("finished after", last, flush=True)
except shutdown.Interrupted as interrupted:
  print("stopped after", last, flush=True)
shutdown.ignore_signals()
processes.exit_process(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("at", "said"),
  [
    (3, ["stopped after 6"] * 2),
    (9, ["stopped after 10"] * 2),
    (10, ["finished after 10", "stopped after 10"]),
  ],
)
def test_no_signal_to_one_of_several_processes_is_lost(at, said):
  """The last one acts in its own process, as it does in an evaluation."""
  pair = command_line.start_script_pair(_STEPS, str(at))
  done = [command_line.ended(process) for process in pair]
  assert [d.returncode for d in done] == [0, 0], done[1].stderr
  found = [d.stdout.strip().splitlines()[-1] for d in done]
  assert found == said


def test_another_thread_leaves_the_handlers_alone():
  def work():
    with shutdown.GracefulShutdown() as graceful:
      found.append(graceful.stop_signal(None, is_last=False))
      found.append(signal.getsignal(signal.SIGTERM))

  found = []
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert found == [0, signal.getsignal(signal.SIGTERM)]
