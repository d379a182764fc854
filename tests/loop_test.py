"""Interrupted runs end where uninterrupted ones do, and others end in a line."""

import json
import os
import random
import shutil
import signal
import types
from unittest import mock

import jax
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.learning import learner
from byol_jax.runtime import claim, devices, meter, writers
from byol_jax.training import loop, restore, runs, saver
from tests import command_line
from tests.eval_cases import prepare, small_config
from tests.experiment_configs import experiment_config

STEPS = 40


def arguments(workdir, **options):
  return (
    *command_line.pretraining(workdir, steps=STEPS, checkpoint_every=7),
    *(f"--config.{key}={value}" for key, value in options.items()),
  )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits_dir):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  done = command_line.run(*arguments(workdir), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.mark.slow
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
  uninterrupted, tmp_path, digits_dir
):
  """The run is stopped, resumed, killed and resumed."""
  log = tmp_path / "metrics.jsonl"

  def cut(signum, lines):
    return command_line.run_and_signal(
      *arguments(tmp_path),
      signum=signum,
      when=log,
      lines=lines,
      data_dir=digits_dir,
    )

  stopped = cut(signal.SIGTERM, random.randrange(3, STEPS // 2))
  assert stopped.returncode == os.EX_TEMPFAIL, stopped.stderr
  assert "run the same command again" in stopped.stdout
  killed = cut(signal.SIGKILL, log.read_text().count("\n") + 3)
  assert killed.returncode == -signal.SIGKILL
  done = command_line.run(*arguments(tmp_path), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr

  leaves, expected = (
    command_line.saved_leaves(workdir, STEPS)
    for workdir in (tmp_path, uninterrupted)
  )
  assert leaves.keys() == expected.keys()
  for name, leaf in expected.items():
    np.testing.assert_array_equal(leaves[name], leaf, err_msg=name)
  rows = [json.loads(line) for line in log.read_text().splitlines()]
  assert [row["step"] for row in rows] == [*range(1, STEPS + 1)]


@pytest.mark.slow
def test_a_finished_run_says_so_and_a_changed_one_is_refused(
  uninterrupted, digits_dir
):
  before = (uninterrupted / "metrics.jsonl").read_text()
  again = command_line.run(*arguments(uninterrupted), data_dir=digits_dir)
  assert again.returncode == 0, again.stderr
  assert "already finished" in again.stdout
  assert (uninterrupted / "metrics.jsonl").read_text() == before

  changed = command_line.run(
    *arguments(uninterrupted, **{"optimizer.base_learning_rate": 9.0}),
    data_dir=digits_dir,
  )
  assert changed.returncode == 1
  assert "optimizer.base_learning_rate" in changed.stderr
  assert "another --workdir" in changed.stderr


@pytest.mark.slow
def test_an_infinite_loss_stops_with_step_and_remedy(tmp_path, digits_dir):
  stopped = command_line.run(
    *arguments(
      tmp_path,
      **{
        "optimizer.name": "sgd",
        "optimizer.base_learning_rate": 1e30,
        "optimizer.warmup_epochs": 0.0,
      },
    ),
    data_dir=digits_dir,
  )
  assert stopped.returncode == 1
  assert "at step" in stopped.stderr.splitlines()[-1]
  assert "lower optimizer.base_learning_rate" in stopped.stderr
  assert "Traceback" not in stopped.stderr


def test_a_workdir_that_is_in_use_is_refused_from_python_too(tmp_path):
  run = prepare(tmp_path, small_config(tmp_path))
  with (
    claim.Claim(run.workdir, print),
    pytest.raises(errors.UserError, match=f"in use by process {os.getpid()}"),
  ):
    loop.pretrain(run)
  assert not (run.workdir / "config.json").exists()


def test_settings_are_written_once_the_run_can_begin(tmp_path, monkeypatch):
  run = prepare(tmp_path, small_config(tmp_path))

  def refuse(*unused):
    raise errors.UserError("no room")

  monkeypatch.setattr(loop.workdir_files, "check_space", refuse)
  with pytest.raises(errors.UserError, match="no room"):
    loop.pretrain(run)
  assert not list(run.workdir.iterdir())


@pytest.mark.parametrize(
  ("part", "value", "message"),
  [
    ("online_params", 2.0**25, r"grown to 3\.4e\+07 after step 7"),
    ("online_params", -1e18, r"grown to 1e\+18 after step 7"),
    ("online_params", np.nan, "not finite after step 7"),
    ("online_state", np.inf, "not finite after step 7"),
  ],
)
def test_parameters_out_of_every_range_are_refused(part, value, message):
  state = learner.TrainState(
    step=7,
    online_params={"net": {"w": np.ones(4, np.float32)}},
    target_params={},
    online_state={"bn": {"var": np.full(4, 1e12, np.float32)}},
    target_state={},
    opt_state=(),
  )
  loop.check_parameters(state, 7)
  bad = jax.tree.map(np.copy, getattr(state, part))
  jax.tree.leaves(bad)[0][2] = value
  with pytest.raises(meter.DivergedError, match=message):
    loop.check_parameters(state._replace(**{part: bad}), 7)


def test_every_step_that_is_kept_for_good_is_saved():
  run = types.SimpleNamespace(
    config=convert.updated(
      schema.Config(),
      {"checkpoint.every_steps": 6, "checkpoint.keep_every": 4},
    ),
    open_checkpoints=lambda *unused: mock.MagicMock(),
  )
  writer = saver.Saver(run, 0)
  due = [step for step in range(1, 13) if writer.is_due(step)]
  assert due == [4, 6, 8, 12]


@pytest.mark.slow
def test_views_finished_on_the_device_train_as_those_of_the_host(
  tmp_path, digits_dir
):
  losses = {}
  for placement in ("host", "device"):
    done = command_line.run(
      *command_line.TINY,
      f"--config.augment.placement={placement}",
      "--config.augment.view1.blur_prob=0.5",
      "--config.train.steps=3",
      "--config.log.every_steps=1",
      "--config.evaluation.protocols=()",
      f"--workdir={tmp_path / placement}",
      data_dir=digits_dir,
    )
    assert done.returncode == 0, done.stderr
    losses[placement] = [
      row["train/repr_loss"]
      for row in writers.read_jsonl(tmp_path / placement / "metrics.jsonl")
    ]
  # Crops travel to the device as bytes.
  np.testing.assert_allclose(losses["device"], losses["host"], rtol=0.01)


@pytest.mark.slow
def test_nothing_compiles_after_the_first_step(
  tmp_path, digits_dir, monkeypatch, compiled
):
  """Neither the update nor metrics nor checkpoints compile again."""
  after_step = []
  pmap_update = devices.pmap_update

  def counting(update, **options):
    mapped = pmap_update(update, **options)
    if options.get("keeps_state"):  # The diagnosis, which is no step.
      return mapped

    def step(state, batch):
      after_step.append(len(compiled))
      return mapped(state, batch)

    return step

  monkeypatch.setattr(devices, "pmap_update", counting)
  cfg = experiment_config("quickstart")
  cfg.model.encoder.name = "TinyResNet"
  cfg.data.image_size = 16
  cfg.data.data_dir = digits_dir
  cfg.train.batch_size = 32
  cfg.train.steps = 6
  cfg.log.every_steps = 1
  cfg.checkpoint.every_steps = 4
  loop.pretrain(runs.prepare(cfg, tmp_path))
  first, second, *later = after_step
  assert second > first
  assert later == [second] * len(later)
  # The last step's metrics and checkpoint come after the last count.
  assert len(compiled) == second


@pytest.mark.slow
def test_steps_up_to_a_damaged_checkpoint_are_saved_again(tmp_path, digits_dir):
  cfg = experiment_config("quickstart")
  cfg.model.encoder.name = "TinyResNet"
  cfg.data.image_size = 16
  cfg.data.data_dir = digits_dir
  cfg.train.batch_size = 32
  cfg.train.steps = 8
  cfg.checkpoint.every_steps = 2
  cfg.checkpoint.keep = 9
  cfg.log.diagnose = False
  loop.pretrain(runs.prepare(cfg, tmp_path))
  folder = tmp_path / "checkpoints"
  for step in (6, 8):
    shutil.rmtree(folder / str(step) / "default")
  saved_at = (folder / "4").stat().st_mtime_ns

  state, was_finished = loop.pretrain(runs.prepare(cfg, tmp_path))
  assert (int(state.step), was_finished) == (8, False)
  assert {path.name for path in folder.iterdir()} == {
    *("2", "4", "6", "8", "damaged-6", "damaged-8")
  }
  assert (folder / "4").stat().st_mtime_ns == saved_at
  restored = restore.restore(runs.prepare(cfg, tmp_path), 6)
  assert int(restored.step) == 6
