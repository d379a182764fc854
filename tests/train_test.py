"""Plans, and interrupted runs that end where uninterrupted ones do."""

import importlib
import json
import os
import random
import signal

import jax
import numpy as np
import pytest

from byol_jax import config, errors
from byol_jax.runtime import devices, writers
from byol_jax.training import build, loop, plan, runs
from tests import command_line

STEPS = 40


def resolved(name, *preset):
  module = importlib.import_module(f"experiments.{name}")
  return module.get_config(*preset)


# Epochs x 1,281,167 images // 4096, as in deepmind-research/byol/configs.
@pytest.mark.parametrize(
  ("preset", "steps", "peak", "tau"),
  [
    ("40", 12_511, 7.2, 0.97),
    ("100", 31_278, 7.2, 0.99),
    ("300", 93_835, 4.8, 0.99),
    ("1000", 312_784, 3.2, 0.996),
  ],
)
def test_imagenet_plans_are_the_references(preset, steps, peak, tau):
  cfg = resolved("imagenet", preset)
  planned = plan.make_plan(cfg, 1_281_167)
  assert planned.total_steps == steps
  assert planned.warmup_steps == 3_127
  assert planned.peak_learning_rate == pytest.approx(peak)
  assert planned.tau == tau
  assert cfg.model.encoder.name == "ResNet50"


def test_steps_override_epochs():
  cfg = config.default_config()
  cfg.train.steps = 7
  assert plan.make_plan(cfg, 1000).total_steps == 7


def test_tau_keeps_its_half_life_when_the_batch_changes():
  """The paper's .996 at 4096 is its .9995 at 512 (appendix G)."""
  cfg = config.default_config()
  large = plan.make_plan(cfg, 100_000)
  cfg.train.batch_size = 512
  assert plan.make_plan(cfg, 100_000).tau == 0.996  # Only if asked for.
  cfg.ema.scale_with_batch = True
  small = plan.make_plan(cfg, 100_000)
  assert round(small.tau, 4) == 0.9995
  assert small.half_life == pytest.approx(large.half_life)
  # 0.996 ** 173 is a half.
  assert large.half_life == pytest.approx(173 * 4096, rel=2e-3)
  for base, half_life in ((0.0, 0.0), (1.0, np.inf)):
    cfg.ema.base = base
    assert plan.make_plan(cfg, 100_000).tau == base
    assert plan.make_plan(cfg, 100_000).half_life == half_life


def test_small_batch_norm_groups_and_long_warm_ups_draw_a_note():
  cfg = config.default_config()
  cfg.train.batch_size = 256
  cfg.train.microbatches = 16
  assert not [x for x in told(cfg) if "Note" in x]
  cfg.train.microbatches = 32
  (note,) = (x for x in told(cfg) if "Note" in x)
  assert "only 8 images" in note
  assert "59.7 at 64" in note
  cfg.train.microbatches = 1
  cfg.train.epochs = 5
  (note,) = (x for x in told(cfg) if "Note" in x)
  assert "optimizer.warmup_epochs" in note


def told(cfg):
  return plan.describe(plan.make_plan(cfg, 10_000), cfg.ema.schedule)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_learner_is_built_from_any_configuration(schedule):
  cfg = config.default_config()
  cfg.ema.schedule = schedule
  planned = plan.make_plan(cfg, 1000)
  build.build_learner(cfg, planned, num_classes=10)
  cfg.ema.schedule = "sawtooth"
  with pytest.raises(errors.UserError, match="cosine, constant"):
    build.build_learner(cfg, planned, num_classes=10)


def arguments(workdir, **options):
  return (
    *command_line.TINY,
    f"--workdir={workdir}",
    f"--config.train.steps={STEPS}",
    "--config.checkpoint.every_steps=7",
    "--config.log.every_steps=1",
    "--config.evaluation.protocols=()",
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
  """Told to stop, gone on, killed, gone on."""
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
  tmp_path, digits_dir, monkeypatch
):
  """Neither the update nor what stands around it, metrics and checkpoints."""
  compiled, after_step = [], []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if "compile" in event else 0
  )
  pmap_update = devices.pmap_update

  def counting(update):
    mapped = pmap_update(update)

    def step(state, batch):
      after_step.append(len(compiled))
      return mapped(state, batch)

    return step

  monkeypatch.setattr(devices, "pmap_update", counting)
  cfg = resolved("quickstart")
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
