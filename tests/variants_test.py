"""Every variant trains on two devices."""

import chex
import jax
import numpy as np
import pytest

from byol_jax.learning import learner, losses, optimizers, schedules
from byol_jax.models import encoders
from byol_jax.runtime import devices, platforms
from byol_jax.training import build, plan
from tests.network_cases import (
  PATCH_ENCODERS,
  PATCHES,
  settings_of_patches,
)

VARIANTS = {
  "layer norm in the loss": {"loss.normalization": "layer"},
  "batch norm in the loss": {"loss.normalization": "batch"},
  "one plain direction": {
    "loss.normalization": "none",
    "loss.symmetric": False,
  },
  "SimCLR's loss and ReLIC's penalty": {
    "loss.beta": 1.0,
    "loss.relic": 1.0,
    "loss.target_network": False,
    "model.predictor.kind": "none",
  },
  "a closed-form predictor": {"model.predictor.kind": "closed_form"},
  "DirectPred": {
    "model.predictor.kind": "direct_pred",
    "optimizer.projector_rate": 2.0,
  },
  "an average of statistics": {
    "ema.average_statistics": True,
    "ema.same_start": True,
    "optimizer.name": "adamw",
    "optimizer.schedule": "wsd",
  },
  "group norm and standardised weights": {
    "model.encoder.name": "TinyResNet",
    "model.encoder.norm": "group",
    "model.projector.norm": "layer",
    "model.predictor.norm": "none",
  },
  **{
    family: {f"model.encoder.{key}": value for key, value in options.items()}
    for family, options in PATCH_ENCODERS.items()
  },
  "Lion": {
    "optimizer.name": "lion",
    "optimizer.clip": 0.1,
    "optimizer.schedule": "step",
  },
}


@pytest.fixture(autouse=True)
def patches(monkeypatch):
  monkeypatch.setitem(encoders.ENCODERS, "Patches", PATCHES)


def make_batch():
  rng = np.random.RandomState(0)
  images = rng.rand(2, 8, 8, 8, 3).astype(np.float32)
  labels = np.arange(8, dtype=np.int32) % 4
  return {"view1": images[0], "view2": images[1], "label": labels}


def make_learner(settings):
  return build.build_learner(settings, plan.make_plan(settings, 64), 4)


# They take long to compile.
_SLOW = {"group norm and standardised weights", *PATCH_ENCODERS}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name
    for name in VARIANTS
  ],
)
def test_a_variant_trains_on_two_devices(name):
  built = make_learner(settings_of_patches(VARIANTS[name]))
  batch = make_batch()
  state = built.init(jax.random.key(0), batch)
  start = jax.device_get(state.online_params)
  update = devices.pmap_update(built.update)
  state = devices.replicate(state)
  # The forms of CPUs take minutes to compile in a ConvNeXt.
  with platforms.assume("any" if name in PATCH_ENCODERS else "cpu"):
    for on_devices in devices.prefetch([batch] * 20):
      state, metrics = update(state, on_devices)
  for leaf in jax.tree.leaves((state, metrics)):
    assert np.all(np.isfinite(leaf))
  moved = {
    module
    for module, arrays in start.items()
    for key, array in arrays.items()
    if np.any(state.online_params[module][key] != array)
  }
  assert moved == set(start)


@pytest.mark.slow
@pytest.mark.parametrize("family", PATCH_ENCODERS)
def test_one_device_equals_two_for_encoders_of_patches(family):
  settings = settings_of_patches(VARIANTS[family])
  built, batch = make_learner(settings), make_batch()
  with platforms.assume("any"):  # It compiles in a fraction of the time.
    start = built.init(jax.random.key(0), batch)
    one, metrics_one = jax.jit(built.update)(start, batch)
    (on_devices,) = devices.prefetch([batch])
    two, metrics_two = devices.pmap_update(built.update)(
      devices.replicate(start), on_devices
    )
  chex.assert_trees_all_close(metrics_one, metrics_two, rtol=1e-4, atol=1e-6)
  chex.assert_trees_all_close(
    one.online_params, two.online_params, rtol=1e-4, atol=1e-6
  )


def test_the_target_may_start_as_a_copy():
  for same in (False, True):
    built = make_learner(settings_of_patches({"ema.same_start": same}))
    state = built.init(jax.random.key(0), make_batch())
    w = [params["patches/linear"]["w"] for params in state[1:3]]
    assert np.array_equal(*w) is same
    assert w[0] is not w[1]


def test_the_target_may_average_the_statistics_of_the_online_network():
  settings = settings_of_patches({"ema.average_statistics": True})
  built, batch = make_learner(settings), make_batch()
  state = built.init(jax.random.key(0), batch)
  states, update = [], jax.jit(built.update)
  for _ in range(2):
    before = state
    state, metrics = update(state, batch)
    states.append(state)
  first, second = states
  averages = [
    (s.target_state[module]["average"], s.online_state[module]["average"])
    for s in states
    for module in sorted(s.online_state)
  ]
  modules = len(first.online_state)
  for target, online in averages[:modules]:
    np.testing.assert_allclose(target, online)
  tau = metrics["tau"]
  for (old, _), (target, online) in zip(
    averages[:modules], averages[modules:], strict=True
  ):
    np.testing.assert_allclose(
      target, tau * old + (1 - tau) * online, rtol=1e-4, atol=1e-6
    )
    assert np.any(target != online)
  # The target sees the views by these statistics.
  network = build.build_network(settings, 4)
  views = [batch["view1"], batch["view2"]]
  online, target = (
    [
      network.apply(params, statistics, view, is_training=training)[0]
      for view in views
    ]
    for params, statistics, training in (
      (before.online_params, before.online_state, True),
      (before.target_params, second.target_state, False),
    )
  )
  np.testing.assert_allclose(
    metrics["repr_loss"], losses.byol_loss(online, target), rtol=1e-4
  )


@pytest.mark.parametrize("has_target", [True, False])
def test_a_target_network_that_the_loss_ignores_does_not_run(has_target):
  settings = settings_of_patches({"loss.target_network": has_target})
  network, calls = build.build_network(settings, 4), []

  def apply(*args, **options):
    calls.append(args)
    return network.apply(*args, **options)

  tau = schedules.learning_rate_schedule(1.0, total_steps=1, warmup_steps=0)
  one = learner.make_learner(
    network._replace(apply=apply),
    optimizers.make_optimizer(tau, settings.optimizer),
    tau,
    tau,
    objective=build.make_objective(settings, tau),
  )
  batch = make_batch()
  state = jax.eval_shape(lambda key: one.init(key, batch), jax.random.key(0))
  jax.eval_shape(one.update, state, batch)
  assert len(calls) == 1 + has_target
