"""Schedules, LARS and the moving average against the reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.learning import optimizers, schedules, target
from tests.golden_data import Golden

SCHEDULES = Golden("schedules")
LARS = Golden("lars")


@pytest.mark.parametrize("i", range(5))
def test_learning_rate_is_the_references(i):
  setting = SCHEDULES.json("lr_settings_json")[i]
  schedule = schedules.learning_rate_schedule(
    schedules.peak_learning_rate(
      setting["base_learning_rate"], setting["batch_size"]
    ),
    total_steps=setting["total_steps"],
    warmup_steps=setting["warmup_steps"],
  )
  rates = jax.jit(jax.vmap(schedule))(SCHEDULES[f"lr/{i}/steps"])
  peak = setting["base_learning_rate"] * setting["batch_size"] / 256
  np.testing.assert_allclose(
    rates, SCHEDULES[f"lr/{i}/value"], rtol=1e-6, atol=1.5e-7 * max(peak, 1)
  )


@pytest.mark.parametrize("i", range(4))
def test_tau_is_the_references(i):
  setting = SCHEDULES.json("ema_settings_json")[i]
  schedule = target.tau_schedule(
    "cosine", setting["base_ema"], setting["max_steps"]
  )
  taus = jax.vmap(schedule)(SCHEDULES[f"ema/{i}/steps"])
  np.testing.assert_allclose(taus, SCHEDULES[f"ema/{i}/value"], atol=2e-7)


def test_schedules_hold_their_last_value_and_stay_finite():
  rate = schedules.learning_rate_schedule(1.0, total_steps=4, warmup_steps=4)
  np.testing.assert_allclose(
    jax.vmap(rate)(jnp.arange(7)),
    [0, 0.25, 0.5, 0.75, 1.0, 0.0, 0.0],
    atol=1e-6,
  )
  tau = target.tau_schedule("constant", 0.9, 10)
  np.testing.assert_allclose(jax.vmap(tau)(jnp.arange(20)), 0.9)


def test_tau_rises_in_steps():
  tau = target.tau_schedule("step", 0.9, 18)
  np.testing.assert_allclose(
    jax.vmap(tau)(jnp.array([0, 5, 6, 11, 12, 15, 16, 30])),
    [0.9, 0.9, 0.99, 0.99, 0.999, 0.999, 0.9999, 0.9999],
    rtol=1e-6,
  )
  for base in (0.0, 1.0):
    assert target.tau_schedule("step", base, 18)(0) == base
  assert target.tau_schedule("step", 1.0, 18)(17) == 1


@pytest.mark.parametrize("batch_size", [1, 50, 200])
def test_a_target_forgets_half_of_its_past_in_its_half_life(batch_size):
  tau = target.tau_of_half_life(200, batch_size)
  average = {"w": jnp.ones(3)}
  for _ in range(200 // batch_size):
    average = target.update_target(average, {"w": jnp.zeros(3)}, tau)
  np.testing.assert_allclose(average["w"], 0.5, rtol=1e-4)


def test_five_lars_steps_are_the_references():
  rates = jnp.asarray(LARS["learning_rates"])
  hparams = LARS.json("hparams_json")
  optimizer = optimizers.lars(
    lambda step: rates[step],
    schema.OptimizerConfig(
      weight_decay=hparams["weight_decay"],
      momentum=hparams["momentum"],
      trust_coefficient=hparams["eta"],
    ),
  )
  params = jax.tree.map(jnp.asarray, LARS.tree("params/0"))
  state = optimizer.init(params)
  for i in range(5):
    updates, state = optimizer.update(LARS.tree(f"grads/{i}"), state, params)
    params = optax.apply_updates(params, updates)
    trace = optax.tree.get(state, "trace")
    chex.assert_trees_all_close(
      trace, LARS.tree(f"mu/{i + 1}"), rtol=1e-6, atol=1e-7
    )
    chex.assert_trees_all_close(
      params, LARS.tree(f"params/{i + 1}"), rtol=1e-6, atol=1e-6
    )


def test_biases_and_norms_are_neither_decayed_nor_adapted():
  params = {
    "projector/linear": {"w": 0, "b": 0},
    "res_net50/~/initial_batchnorm": {"scale": 0, "offset": 0},
    "projector/batch_norm": {"scale": 0, "offset": 0},
  }
  assert optimizers.exclude_bias_and_norm(params) == {
    "projector/linear": {"w": True, "b": False},
    "res_net50/~/initial_batchnorm": {"scale": False, "offset": False},
    "projector/batch_norm": {"scale": False, "offset": False},
  }


def test_the_heads_may_learn_at_rates_of_their_own():
  params = {
    module: {"w": jnp.ones(2)}
    for module in ("encoder", "projector/linear", "predictor/linear_1")
  }
  updates = []
  for rates in ({}, {"projector_rate": 2.0, "predictor_rate": 10.0}):
    optimizer = optimizers.make_optimizer(
      lambda step: 0.1, schema.OptimizerConfig(**rates)
    )
    updates.append(optimizer.update(params, optimizer.init(params), params)[0])
  plain, scaled = updates
  for module, factor in zip(params, (1, 2, 10), strict=True):
    np.testing.assert_allclose(
      scaled[module]["w"], factor * plain[module]["w"], rtol=1e-6
    )


@pytest.mark.parametrize(
  ("decay", "rates"),
  [
    ("constant", [1, 1, 1, 1, 1, 1, 1]),
    ("step", [1, 1, 0.1, 0.1, 0.01, 0.001, 0.001]),
    ("wsd", [1, 1, 1, 1, 1, 0.5, 0]),
  ],
)
def test_rates_decay_by_other_schedules(decay, rates):
  schedule = schedules.learning_rate_schedule(
    2.0, total_steps=100, warmup_steps=10, decay=decay
  )
  steps = jnp.array([10, 39, 41, 69, 71, 91, 100])
  np.testing.assert_allclose(
    jax.vmap(schedule)(steps), 2 * np.array(rates), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(schedule(5), 1.0)
  with pytest.raises(errors.UserError, match="cosine, constant, step, wsd"):
    schedules.learning_rate_schedule(
      2.0, total_steps=100, warmup_steps=10, decay="linear"
    )


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_decays_weights_only(name):
  arrays = {"w": jnp.full((2, 2), 3.0), "b": jnp.full(2, 3.0)}
  params = {"linear": arrays, "batch_norm": {"scale": jnp.full(2, 3.0)}}
  optimizer = optimizers.make_optimizer(
    lambda step: 0.1, schema.OptimizerConfig(name=name, weight_decay=0.5)
  )
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  assert np.all(updates["linear"]["w"] < 0)
  assert not np.any(updates["linear"]["b"])
  assert not np.any(updates["batch_norm"]["scale"])


@pytest.mark.parametrize(
  ("name", "update"),
  [("adam", [-0.1, 0.1]), ("adamw", [-0.1, 0.1]), ("lion", [-0.1, 0.1])],
)
def test_first_steps_of_adam_and_lion_are_signs(name, update):
  params = {"linear": {"w": jnp.zeros(2)}}
  optimizer = optimizers.make_optimizer(
    lambda step: 0.1, schema.OptimizerConfig(name=name)
  )
  gradient = {"linear": {"w": jnp.array([5.0, -0.2])}}
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_allclose(updates["linear"]["w"], update, rtol=1e-4)


@pytest.mark.parametrize(("clip", "length"), [(0.0, 5.0), (2.0, 2.0)])
def test_the_gradient_is_clipped_by_its_norm_over_all_parameters(clip, length):
  params = {"a": {"b": jnp.zeros(1)}, "norm": {"scale": jnp.zeros(1)}}
  gradient = {"a": {"b": jnp.array([3.0])}, "norm": {"scale": jnp.array([4.0])}}
  optimizer = optimizers.make_optimizer(
    lambda step: 1.0, schema.OptimizerConfig(name="sgd", clip=clip)
  )
  updates, _ = optimizer.update(gradient, optimizer.init(params), params)
  np.testing.assert_allclose(optax.tree.norm(updates), length, rtol=1e-6)


def test_tau_of_one_keeps_the_target_and_zero_copies():
  params = {"m": {"w": jnp.array([0.1, -3.0, 1e-8])}}
  online = {"m": {"w": jnp.array([7.3, 0.2, 1.0])}}
  chex.assert_trees_all_equal(
    target.update_target(params, online, jnp.float32(1)), params
  )
  chex.assert_trees_all_close(
    target.update_target(params, online, jnp.float32(0)), online, rtol=1e-6
  )


def test_unknown_names_list_the_known_ones():
  with pytest.raises(errors.UserError, match=r"'adamax' is unknown.*lars, sgd"):
    optimizers.make_optimizer(
      lambda step: 0.1, schema.OptimizerConfig(name="adamax")
    )
  with pytest.raises(errors.UserError, match="cosine, constant"):
    target.tau_schedule("linear", 0.9, 10)
