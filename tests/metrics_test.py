"""Metrics survive kills and resumes, and any JSON parser reads them."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from byol_jax import errors
from byol_jax.runtime import meter, writers


def _write(path, steps, resume_step=0):
  writer = writers.JsonlWriter(path, resume_step)
  for step in steps:
    writer.write(step, {"train/loss": float(step)})
  writer.close()


def _steps(path):
  return [row["step"] for row in writers.read_jsonl(path)]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
  writer = writers.JsonlWriter(tmp_path / "m.jsonl", 0)
  writer.write(10, {"train/loss": np.float32(1.5), "train/tau": 1})
  text = (tmp_path / "m.jsonl").read_text()
  assert text == '{"step": 10, "train/loss": 1.5, "train/tau": 1.0}\n'
  writer.close()


def test_resuming_drops_what_comes_after_the_checkpoint(tmp_path):
  path = tmp_path / "m.jsonl"
  _write(path, [10, 20, 30, 40])
  _write(path, [30, 40, 50], resume_step=20)
  assert _steps(path) == [10, 20, 30, 40, 50]


def test_starting_anew_drops_everything(tmp_path):
  path = tmp_path / "m.jsonl"
  _write(path, [10, 20])
  _write(path, [10], resume_step=0)
  assert _steps(path) == [10]


def test_a_torn_last_line_is_skipped_and_then_written_over(tmp_path):
  path = tmp_path / "m.jsonl"
  _write(path, [10, 20])
  with path.open("a") as file:
    file.write('{"step": 20, "train/lo')
  assert _steps(path) == [10, 20]
  _write(path, [30], resume_step=20)
  assert _steps(path) == [10, 20, 30]
  assert "lo\n" not in path.read_text()


def test_not_finite_numbers_become_null_and_stay_so(tmp_path):
  path = tmp_path / "m.jsonl"
  writer = writers.JsonlWriter(path, 0)
  writer.write(1, {"a": float("nan"), "b": np.float32("inf"), "c": 2.0})
  writer.close()
  writers.JsonlWriter(path, 1).close()
  row = json.loads(path.read_text(), parse_constant=pytest.fail)
  assert row == {"step": 1, "a": None, "b": None, "c": 2.0}


def test_there_are_no_rows_without_a_file(tmp_path):
  assert writers.read_jsonl(tmp_path / "absent.jsonl") == []


def test_unwritable_metrics_are_one_line(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match="Not a directory") as info:
    writers.JsonlWriter(tmp_path / "file" / "m.jsonl", 0)
  assert "\n" not in str(info.value)


def test_tensorboard_reads_scalars_back(tmp_path):
  writer = writers.TensorBoardWriter(tmp_path)
  writer.write(5, {"train/loss": 2.5})
  writer.close()
  (path,) = tmp_path.iterdir()
  values = {}
  for record in tf.data.TFRecordDataset(str(path)):
    event = tf.compat.v1.Event.FromString(record.numpy())
    for value in event.summary.value:
      values[value.tag] = (event.step, tf.make_ndarray(value.tensor).item())
  assert values == {"train/loss": (5, 2.5)}


_SCALARS = {
  "train/loss": 2.314,
  "train/top1_accuracy": 0.4521,
  "train/images_per_second": 1812.3,
  "train/data_wait": 0.031,
  "train/tau": 0.99,
}


def test_progress_in_a_file_is_few_lines_with_what_matters(capsys):
  bar = writers.ProgressBar(total=1000, initial=10)
  for step in range(11, 1001):
    bar.write(step, _SCALARS)
  bar.close()
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) <= 3
  assert "step 10/1000" in lines[0]
  assert "step 1000/1000" in lines[-1]
  shown = "loss 2.31 | top-1 45.2% | 1,812 img/s | data wait 3%"
  assert lines[-1].endswith(shown)


def test_progress_in_a_file_goes_on_every_half_minute(capsys, monkeypatch):
  bar = writers.ProgressBar(total=100, initial=0)
  now = bar._bar._time()
  monkeypatch.setattr(bar._bar, "_time", lambda: now + 31)
  bar.update(50)
  bar.update(51)
  text = capsys.readouterr().err
  assert "step 50/100" in text
  assert "step 51/100" not in text
  bar.close()


def test_progress_on_a_terminal_is_redrawn_in_place(capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
  bar = writers.ProgressBar(total=10, initial=0)
  bar.write(10, {"train/loss": 1.0})
  bar.close()
  text = capsys.readouterr().err
  assert "\r100% |" in text
  assert "loss 1.00" in text


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
  found = meter.Meter([], batch_size=1, every_steps=100, last_step=100)
  for step in range(1, 6):
    under_way.append(step)
    found.add(step, {"loss": OnDevice(step)})
  assert fetched == [1, 2, 3]
  draining = True
  found.drain()
  assert fetched == [1, 2, 3, 4, 5]
