"""Trackers get each step once, and training does not depend on them."""

import time
import types

import numpy as np
import PIL.Image
import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.runtime import tracking
from byol_jax.training import outputs


class Fake:
  """A tracker that keeps what it gets, and fails at a step if told to."""

  def __init__(self, about, last_step=-1, fails_at=None):
    self.last_step, self.fails_at = last_step, fails_at
    self.run_id, self.place = about.run_id or "new", "somewhere"
    self.steps, self.results, self.is_closed = [], {}, False

  def log(self, step, scalars):
    if step == self.fails_at:
      raise OSError("no route to host\nand more")
    self.steps.append((step, dict(scalars)))

  def conclude(self, step, results, pictures):
    self.results = dict(results)

  def close(self):
    self.is_closed = True


@pytest.fixture
def opened(monkeypatch, tmp_path):
  """Opens a writer of a fake tracker; returns it, the tracker and saved ids."""

  def open_one(run_id="", earlier=(), **kwargs):
    made, ids = [], []

    def make(about):
      made.append(Fake(about, **kwargs))
      return made[0]

    monkeypatch.setitem(tracking.TRACKERS, "wandb", make)
    about = tracking.About("run", {"seed": 0}, tmp_path, run_id)
    return tracking.Tracking("wandb", about, ids.append, earlier), made, ids

  return open_one


def test_a_new_run_gets_what_was_measured_before(opened, capsys):
  earlier = [{"step": 10, "train/loss": None}]
  writer, made, ids = opened(earlier=earlier)
  writer.write(20, {"train/loss": np.float32(0.5)})
  writer.conclude(20, {"linear/top1": 0.9}, {})
  writer.close()
  (first, nothing), second = made[0].steps
  assert (first, second) == (10, (20, {"train/loss": 0.5}))
  assert np.isnan(nothing["train/loss"])
  assert made[0].results == {"linear/top1": 0.9}
  assert made[0].is_closed
  assert ids == ["new"]
  assert capsys.readouterr().out == "wandb: somewhere\n"


@pytest.mark.parametrize(
  ("last_step", "expected"), [(40, [50]), (10, [20, 30, 40, 50])]
)
def test_a_resumed_run_gets_each_step_once(opened, last_step, expected):
  """Whether the tracker is ahead of the checkpoint or lacks steps before it."""
  earlier = [{"step": step, "train/loss": 1.0} for step in (10, 20)]
  writer, made, ids = opened("mine", earlier, last_step=last_step)
  for step in (30, 40, 50):
    writer.write(step, {"train/loss": 1.0})
  writer.close()
  assert [step for step, _ in made[0].steps] == expected
  assert ids == []


def test_a_tracker_that_fails_is_one_line(opened, capsys):
  writer, made, _ = opened(fails_at=20)
  for step in (10, 20, 30):
    writer.write(step, {"train/loss": 1.0})
  writer.flush()
  writer.close()
  assert [step for step, _ in made[0].steps] == [10]
  (note,) = capsys.readouterr().err.splitlines()
  assert note.startswith(
    "Note: wandb failed (no route to host); the run goes on"
  )


def test_a_tracker_that_hangs_is_left_behind(opened, capsys, monkeypatch):
  monkeypatch.setattr(tracking, "_CLOSE_SECONDS", 0.2)
  hang = types.SimpleNamespace(wait=lambda tracker: __import__("time").sleep(5))
  writer, _, _ = opened()
  writer._tasks.put(hang.wait)
  writer.close()
  assert "did not answer for 0 seconds" in capsys.readouterr().err


def with_writers(*names):
  return convert.updated(schema.Config(), {"log.writers": names})


def test_writers_that_cannot_be_had_are_one_line(monkeypatch):
  with pytest.raises(errors.UserError, match="tensorboard, wandb, mlflow"):
    outputs.check(with_writers("tensorbord"))
  monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(
    errors.UserError, match=r"pip install 'byol_jax\[mlflow\]'"
  ):
    outputs.check(with_writers("tensorboard,mlflow"))
  outputs.check(with_writers())


def wandb_rows(folder):
  """Step, names and values of all rows that W&B keeps to be synchronised.

  A file is a log of LevelDB: blocks of 32 kB with records of protocol buffers.
  """
  from wandb.proto import wandb_internal_pb2

  for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
      if 32768 - position % 32768 < 7:
        position += 32768 - position % 32768
      size = int.from_bytes(data[position + 4 : position + 6], "little")
      record += data[position + 7 : position + 7 + size]
      kind, position = data[position + 6], position + 7 + size
      if kind in (1, 4):  # The whole of a record, or its end.
        yield wandb_internal_pb2.Record.FromString(record)
        record = b""


def key_of(item):
  return item.key or "/".join(item.nested_key)


def write_twice(tmp_path, name):
  """Writes as a training that is killed after step 5 and resumes from step 4."""
  run = types.SimpleNamespace(
    workdir=tmp_path / "run", config=with_writers("tensorboard", name)
  )
  for resume_step, steps in ((0, (1, 2, 3, 4, 5)), (4, (5, 6))):
    opened = outputs.open_writers(run, resume_step)
    for step in steps:
      for writer in opened:
        writer.write(step, {"train/loss": np.float32(step)})
    for writer in opened:
      writer.close()
    time.sleep(1.1)  # W&B names the folder of a start by the second.
  picture = tmp_path / "views.png"
  PIL.Image.new("RGB", (4, 3)).save(picture)
  outputs.conclude(run, 6, {"linear/top1": 0.75}, {"views": picture})
  return run


def test_wandb_continues_one_run_offline(tmp_path, monkeypatch):
  pytest.importorskip("wandb", reason="wandb is not installed")
  monkeypatch.setenv("WANDB_MODE", "offline")
  run = write_twice(tmp_path, "wandb")
  records = list(wandb_rows(run.workdir / "trackers"))
  assert len({x.run.run_id for x in records if x.HasField("run")}) == 1
  (config, *_) = (x.run.config.update for x in records if x.HasField("run"))
  assert "train.batch_size" in {key_of(item) for item in config}
  rows = [
    {key_of(i): i.value_json for i in x.history.item}
    for x in records
    if x.HasField("history")
  ]
  steps = [int(row["_step"]) for row in rows if "train/loss" in row]
  assert steps == [1, 2, 3, 4, 5, 6]
  assert [x["_step"] for x in rows if "views/path" in x] == ["7"]
  summary = {key_of(i): i.value_json for x in records for i in x.summary.update}
  assert summary["linear/top1"] == "0.75"


def test_mlflow_continues_one_run(tmp_path, monkeypatch):
  mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
  write_twice(tmp_path, "mlflow")
  client = mlflow.MlflowClient()
  experiment = client.get_experiment_by_name("byol_jax")
  (found,) = client.search_runs([experiment.experiment_id])
  assert found.info.status == "FINISHED"
  assert found.data.params["train.batch_size"] == "4096"
  history = client.get_metric_history(found.info.run_id, "train/loss")
  assert [x.step for x in history] == [1, 2, 3, 4, 5, 6]
  assert found.data.metrics["linear/top1"] == 0.75
  (figure,) = client.list_artifacts(found.info.run_id, "figures")
  assert figure.path == "figures/views.png"
