"""A process that hangs is ended, as in multiprocess_test.py with real ones."""

import threading
import time

import pytest

from byol_jax.runtime import processes, watchdog


@pytest.fixture
def ended(monkeypatch):
  """Set when the process would have been ended; it counts as one of several."""
  event = threading.Event()
  codes = []

  def exit_process(code, *, alone):
    assert alone
    codes.append(code)
    watching.__exit__()
    event.set()

  watching = watchdog.Watchdog(0.2)
  monkeypatch.setattr(processes, "is_multiprocess", lambda: True)
  monkeypatch.setattr(processes, "exit_process", exit_process)
  return watching, event, codes


def test_a_process_without_steps_is_ended_and_says_where_it_is(ended, capfd):
  watching, event, codes = ended
  with watching:
    watching.alive()
    assert event.wait(10)
  assert codes == [processes.EXIT_RESUMABLE]
  said = capfd.readouterr().err
  assert "no step for 0.2 seconds (train.hang_seconds" in said
  assert "watchdog_test.py" in said


def test_the_first_step_may_take_longer_but_not_for_ever(ended, capfd):
  watching, event, _ = ended
  with watching:
    assert not event.wait(0.6)  # Three times as long.
    assert event.wait(10)
  assert "no step for 1.2" in capfd.readouterr().err


def test_steps_reset_the_clock(ended):
  watching, event, _ = ended
  with watching:
    for _ in range(8):
      watching.alive()
      time.sleep(0.05)
    assert not event.is_set()
