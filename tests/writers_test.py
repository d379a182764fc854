"""Metrics survive kills and resumes, and any JSON parser reads them."""

import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from byol_jax import errors
from byol_jax.runtime import writers
from tests import command_line


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


def _events(folder):
  """Tag, step and value of each scalar in a folder's one event file."""
  (path,) = folder.iterdir()
  return [
    (value.tag, event.step, value.simple_value)
    for event in tf.compat.v1.train.summary_iterator(str(path))
    for value in event.summary.value
  ]


def test_tensorboard_reads_scalars_back_as_soon_as_they_are_written(tmp_path):
  folder = tmp_path / "new" / "tensorboard"
  writer = writers.TensorBoardWriter(folder, 0)
  writer.write(5, {"train/loss": np.float32(2.5), "train/tau": 1})
  assert _events(folder) == [("train/loss", 5, 2.5), ("train/tau", 5, 1.0)]
  writer.write(2**40, {"train/loss": 0.1})
  writer.close()
  assert _events(folder)[2:] == [("train/loss", 2**40, np.float32(0.1))]


def test_tensorboard_shows_the_events_among_its_scalars(tmp_path):
  writer = writers.TensorBoardWriter(tmp_path, 0)
  writer.write(5, {"train/loss": 2.5})
  writer.close()
  (path,) = tmp_path.iterdir()
  assert "tfevents" in path.name  # The names that TensorBoard looks for.
  first = next(iter(tf.compat.v1.train.summary_iterator(str(path))))
  assert first.file_version == "brain.Event:2"


def test_tensorboard_shows_results_and_pictures(tmp_path):
  PIL.Image.new("RGB", (4, 3), "red").save(tmp_path / "views.png")
  writer = writers.TensorBoardWriter(tmp_path / "new", 9)
  writer.conclude(9, {"linear/top1": 0.75}, {"views": tmp_path / "views.png"})
  writer.close()
  (path,) = (tmp_path / "new").iterdir()
  *_, result, picture = tf.compat.v1.train.summary_iterator(str(path))
  assert result.summary.value[0].tag == "linear/top1"
  assert result.summary.value[0].simple_value == 0.75
  assert (picture.step, picture.summary.value[0].tag) == (9, "views")
  image = picture.summary.value[0].image
  assert (image.width, image.height) == (4, 3)
  decoded = tf.io.decode_png(image.encoded_image_string).numpy()
  assert (decoded == [255, 0, 0]).all()


def test_tensorboard_is_told_which_steps_a_resumed_run_repeats(tmp_path):
  for resume_step in (0, 20):
    writers.TensorBoardWriter(tmp_path / str(resume_step), resume_step).close()
    (path,) = (tmp_path / str(resume_step)).iterdir()
    _, start = tf.compat.v1.train.summary_iterator(str(path))
    assert start.session_log.status == start.session_log.START
    # TensorBoard drops points from this step on, so the checkpoint's own stays.
    assert start.step == resume_step + 1


def test_unwritable_tensorboard_events_are_one_line(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match="Not a directory") as info:
    writers.TensorBoardWriter(tmp_path / "file" / "tensorboard", 0)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["JsonlWriter", "TensorBoardWriter"])
def test_a_disk_that_is_full_while_training_is_one_line(tmp_path, name):
  """Files above the limit cannot be written, as on a disk that is full."""
  code = f"""
import pathlib, resource
from byol_jax import errors
from byol_jax.runtime import writers
path = pathlib.Path({str(tmp_path)!r}) / "written"
writer = writers.{name}(path, 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
  for step in range(100):
    writer.write(step, {{"train/loss": 1.0}})
except errors.UserError as error:
  print(error)
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    cwd=command_line.ROOT,
  )
  assert done.stdout.startswith(f"Cannot write {tmp_path / 'written'}"), done
  assert "File too large; free space there" in done.stdout
  assert done.stdout.count("\n") == 1


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


def test_waiting_for_data_is_told_once_and_not_of_the_first_interval(capsys):
  hint = writers.DataWaitHint("add cores")
  for step, wait in ((10, 0.9), (20, 0.1), (30, 0.25), (40, 0.5)):
    hint.write(step, {"train/data_wait": wait})
  (note,) = capsys.readouterr().err.splitlines()
  assert "step 30" in note
  assert "25%" in note
  assert note.endswith("; add cores.")
