"""The reference's golden updates: its learner, state and batches."""

import functools

import jax
import jax.numpy as jnp

from byol_jax.config import schema
from byol_jax.learning import learner, optimizers, schedules, target
from tests.golden_data import Golden
from tests.golden_network import make_network

ONE = Golden("update_steps_1dev")


def lars_settings():
  hparams = ONE.json("config_json")["optimizer_config"]
  return schema.OptimizerConfig(
    weight_decay=hparams["weight_decay"],
    momentum=hparams["momentum"],
    trust_coefficient=hparams["eta"],
  )


@functools.cache
def make_learner(tau=None, network=None, microbatches=1, **options):
  config = ONE.json("config_json")
  learning_rate = schedules.learning_rate_schedule(
    schedules.peak_learning_rate(
      config["lr_schedule_config"]["base_learning_rate"], config["batch_size"]
    ),
    total_steps=config["max_steps"],
    warmup_steps=config["lr_schedule_config"]["warmup_steps"],
  )
  optimizer = optimizers.lars(learning_rate, lars_settings())
  if tau is None:
    schedule = target.tau_schedule(
      "cosine", config["base_target_ema"], config["max_steps"]
    )
  else:
    schedule = target.tau_schedule("constant", tau, config["max_steps"])
  return learner.make_learner(
    network or make_network(),
    optimizer,
    learning_rate,
    schedule,
    microbatches=microbatches,
    **options,
  )


def golden_batch(step):
  batch = {view: ONE[f"inputs/{step}/{view}"] for view in ("view1", "view2")}
  return {**batch, "label": ONE[f"inputs/{step}/labels"]}


@functools.cache
def initial_state():
  return make_learner().init(jax.random.PRNGKey(42), golden_batch(0))


def start_state():
  names = ("online_params", "target_params", "online_state", "target_state")
  start = {name: ONE.tree(f"start/{name}") for name in names}
  return jax.tree.map(jnp.array, initial_state()._replace(**start))
