"""Means over intervals, and how far the host may lag behind the device."""

import numpy as np
import pytest

from byol_jax.runtime import meter


def test_mean_of_is_taken_name_by_name():
  rows = [{"a": 1, "b": np.float32(2)}, {"a": 2, "b": np.float32(4)}]
  assert meter.mean_over_rows(rows) == {"a": 1.5, "b": 3.0}
  assert meter.mean_over_rows([]) == {}


def test_no_step_is_waited_for_before_two_more_are_under_way():
  """So the device has work while the host looks at writers."""
  fetched, under_way = [], []

  class OnDevice:
    def __init__(self, step):
      self.step = step

    def __array__(self, dtype=None, copy=None):
      fetched.append(self.step)
      assert under_way[-1] >= self.step + 2 or draining
      return np.float32(1.0)

  draining = False
  metrics = meter.Meter([], batch_size=1, every_steps=100, last_step=100)
  for step in range(1, 6):
    under_way.append(step)
    metrics.add(step, {"loss": OnDevice(step)})
  assert fetched == [1, 2, 3]
  draining = True
  metrics.drain()
  assert fetched == [1, 2, 3, 4, 5]


class Recorder:
  """A writer that keeps what it is given."""

  def __init__(self):
    self.rows = {}
    self.flushed = []
    self.closed = False

  def write(self, step, scalars):
    self.rows[step] = dict(scalars)

  def flush(self):
    self.flushed.append(max(self.rows))

  def close(self):
    self.closed = True


def test_an_interval_is_written_as_means_and_the_last_schedules(monkeypatch):
  """The last interval is shorter; one second passes with each reading."""
  seconds = iter(range(100))
  monkeypatch.setattr(meter.time, "monotonic", lambda: next(seconds))
  recorder = Recorder()
  metrics = meter.Meter([recorder], batch_size=8, every_steps=2, last_step=5)
  for step in range(1, 6):
    metrics.add_data_wait(0.25)
    metrics.add(step, {"loss": step, "tau": step / 10, "learning_rate": -step})
  metrics.drain()
  metrics.close()
  assert recorder.closed
  assert [*recorder.rows] == [2, 4, 5]
  assert recorder.flushed == [5]
  assert recorder.rows[4]["train/loss"] == 3.5
  assert recorder.rows[4]["train/tau"] == 0.4
  assert recorder.rows[4]["train/learning_rate"] == -4
  # The first step, which compiles, is not timed: one step in a second.
  assert recorder.rows[2]["train/images_per_second"] == 8
  assert recorder.rows[4]["train/images_per_second"] == 16


def test_a_loss_that_is_not_finite_names_its_step():
  metrics = meter.Meter([], batch_size=1, every_steps=10, last_step=10)
  metrics.add(1, {"loss": 1.0})
  metrics.add(2, {"loss": float("nan")})
  with pytest.raises(meter.DivergedError, match="nan at step 2"):
    metrics.drain()
