"""The plan of a run, and the learner that is built from it."""

import numpy as np
import pytest

from byol_jax import config, errors
from byol_jax.config import convert, schema
from byol_jax.learning import target
from byol_jax.training import build, plan
from tests.experiment_configs import experiment_config


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
  cfg = experiment_config("imagenet", preset)
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


def test_tau_may_be_given_by_its_half_life():
  cfg = config.default_config()
  cfg.ema.half_life = 1e6
  for cfg.train.batch_size in (64, 4096):
    planned = plan.make_plan(cfg, 100_000)
    assert planned.half_life == pytest.approx(1e6)
    assert planned.tau == pytest.approx(0.5 ** (cfg.train.batch_size / 1e6))
    assert any("forgets half in 1,000,000 images" in x for x in told(cfg))
  _, tau = build.make_schedules(cfg, planned)
  assert tau(0) == pytest.approx(planned.tau)
  cfg.ema.half_life = 1e30  # So long that nothing is ever forgotten.
  assert plan.make_plan(cfg, 100_000).tau == 1
  cfg.ema.half_life = 1e-30
  assert plan.make_plan(cfg, 100_000).tau == 0


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


def test_a_network_without_batch_norm_has_no_groups_to_note():
  cfg = config.default_config()
  cfg.train.batch_size = 8
  for part in ("encoder", "projector"):
    cfg.model[part].norm = "group"
  assert any("batch norm sees only" in x for x in told(cfg))
  cfg.model.predictor.norm = "none"
  lines = told(cfg)
  assert not any("sees only" in x for x in lines)
  assert any("No batch norm, in 1 micro-batches" in x for x in lines)


def told(cfg):
  return plan.describe(plan.make_plan(cfg, 10_000), cfg.ema.schedule)


@pytest.mark.parametrize("schedule", target.TAU_SCHEDULES)
def test_a_learner_is_built_from_any_configuration(schedule):
  cfg = config.default_config()
  cfg.ema.schedule = schedule
  planned = plan.make_plan(cfg, 1000)
  build.build_learner(cfg, planned, num_classes=10)
  cfg.ema.schedule = "sawtooth"
  with pytest.raises(errors.UserError, match="cosine, constant"):
    build.build_learner(cfg, planned, num_classes=10)


@pytest.mark.parametrize(
  "changes",
  [{"train.epochs": 2**31 - 1}, {"optimizer.warmup_epochs": 1e30}],
)
def test_more_steps_than_the_state_can_count_are_refused(changes):
  cfg = convert.updated(schema.Config(), changes)
  with pytest.raises(errors.UserError, match="fewer than 2\\*\\*31") as caught:
    plan.make_plan(cfg, 1_281_167)
  ((key, value),) = changes.items()
  assert f"{key}={value}" in str(caught.value)
