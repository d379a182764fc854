"""Plans, and interrupted runs that end where uninterrupted ones do."""

import importlib
import json
import random
import signal

import numpy as np
import orbax.checkpoint as ocp
import pytest

from byol_jax import config, errors, metrics, train
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
  plan = train.make_plan(cfg, 1_281_167)
  assert plan.total_steps == steps
  assert plan.warmup_steps == 3_127
  batches = cfg.train.batch_size / 256
  assert cfg.optimizer.base_learning_rate * batches == pytest.approx(peak)
  assert cfg.ema.base == tau
  assert cfg.model.encoder.name == "ResNet50"


def test_steps_override_epochs():
  cfg = config.default_config()
  cfg.train.steps = 7
  assert train.make_plan(cfg, 1000).total_steps == 7


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_learner_is_built_from_any_configuration(schedule):
  cfg = config.default_config()
  cfg.ema.schedule = schedule
  train.build_learner(cfg, num_classes=10, total_steps=10, warmup_steps=1)
  cfg.ema.schedule = "sawtooth"
  with pytest.raises(errors.UserError, match="cosine, constant"):
    train.build_learner(cfg, num_classes=10, total_steps=10, warmup_steps=1)


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


def final_leaves(workdir):
  folder = workdir / "checkpoints" / str(STEPS) / "default"
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder.absolute())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits_dir):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  done = command_line.run(*arguments(workdir), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
  signum, uninterrupted, tmp_path, digits_dir
):
  log = tmp_path / "metrics.jsonl"
  lines = random.randrange(3, STEPS // 2)
  cut = command_line.run_and_signal(
    *arguments(tmp_path),
    signum=signum,
    when=log,
    lines=lines,
    data_dir=digits_dir,
  )
  if signum == signal.SIGTERM:
    assert cut.returncode == 128 + signal.SIGTERM, cut.stderr
    assert "run the same command again" in cut.stdout
  else:
    assert cut.returncode == -signal.SIGKILL
  done = command_line.run(*arguments(tmp_path), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr

  leaves, expected = final_leaves(tmp_path), final_leaves(uninterrupted)
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
      for row in metrics.read_jsonl(tmp_path / placement / "metrics.jsonl")
    ]
  # Crops travel to the device as bytes.
  np.testing.assert_allclose(losses["device"], losses["host"], rtol=0.01)
