"""The network and the learner that a configuration describes."""

import functools
from collections.abc import Callable
from typing import Any

import haiku as hk

from byol_jax.augment import device_batches, device_ops, extra_ops, spec
from byol_jax.config import schema
from byol_jax.learning import (
  closed_form,
  diagnostics,
  loss_family,
  optimizers,
  schedules,
  target,
  target_variants,
)
from byol_jax.learning.learner import (
  Learner,
  Metrics,
  Objective,
  TrainState,
  make_learner,
)
from byol_jax.models import networks
from byol_jax.training.plan import Plan


def build_network(
  config: schema.Config, num_classes: int
) -> hk.TransformedWithState:
  """Returns the network of a configuration; `UserError` for unknown names.

  Args:
    config: a resolved configuration, see `resolve.resolved`.
    num_classes: outputs of the online classifier.
  """
  return networks.make_network(_network_config(config, num_classes))


def build_encoder(config: schema.Config) -> hk.TransformedWithState:
  """Returns the encoder of `build_network`, see `networks.make_encoder`."""
  return networks.make_encoder(_network_config(config, num_classes=1))


def _network_config(
  config: schema.Config, num_classes: int
) -> networks.NetworkConfig:
  return networks.NetworkConfig(
    model=config.model,
    num_classes=num_classes,
    image_shape=schema.image_shape(config.data),
    mean=config.data.mean,
    std=config.data.std,
    precision=config.train.precision,
    remat=config.train.remat,
  )


def make_views(config: schema.Config) -> spec.Views:
  """Returns the specification of two views; `UserError` for unknown operations."""
  augment = config.augment
  extra_ops.check(spec.enabled_ops(augment.view1, augment.view2).extra)
  on_device = "device" in (augment.placement, config.data.placement)
  return spec.Views(
    view1=augment.view1,
    view2=augment.view2,
    image_shape=schema.image_shape(config.data),
    channels=config.data.channels,
    placement="device" if on_device else "host",
  )


def make_schedules(
  config: schema.Config, plan: Plan
) -> tuple[schedules.Schedule, schedules.Schedule]:
  """Returns the learning rate and tau by step; `UserError` for unknown names."""
  learning_rate = schedules.learning_rate_schedule(
    plan.peak_learning_rate,
    total_steps=plan.total_steps,
    warmup_steps=plan.warmup_steps,
    decay=config.optimizer.schedule,
  )
  tau = target.tau_schedule(config.ema.schedule, plan.tau, plan.total_steps)
  return learning_rate, tau


def make_objective(config: schema.Config, tau: schedules.Schedule) -> Objective:
  """Returns what an update minimises; `UserError` for unknown names."""
  objective = Objective(loss_family.make_loss(config.loss))
  predictor = config.model.predictor
  if predictor.kind == "closed_form":
    objective = objective._replace(
      representation_loss=closed_form.with_closed_form_predictor(
        objective.representation_loss, predictor.ridge
      )
    )
  if config.ema.average_statistics:
    objective = objective._replace(
      target_views=target_variants.averaging_statistics(tau)
    )
  if not config.loss.target_network:
    objective = objective._replace(target_views=target_variants.no_target_views)
  return objective


def build_learner(
  config: schema.Config, plan: Plan, num_classes: int
) -> Learner:
  """Returns the pure functions that train as a configuration says.

  Args:
    config: a resolved configuration, see `resolve.resolved`.
    plan: of the same configuration, for the schedules.
    num_classes: outputs of the online classifier.

  Returns:
    Its `init` and `update`, which takes batches as the data layer makes them, or
    all images with `data.placement=device`.

  Raises:
    UserError: if a name, such as that of the optimizer, is unknown.
  """
  learning_rate, tau = make_schedules(config, plan)
  learner = make_learner(
    build_network(config, num_classes),
    optimizers.make_optimizer(learning_rate, config.optimizer),
    learning_rate,
    tau,
    objective=make_objective(config, tau),
    **_batch_steps(config, plan),
  )
  if config.ema.same_start:
    return learner._replace(
      init=target_variants.starting_as_online(learner.init)
    )
  return learner


def build_observed_update(
  config: schema.Config, learner: Learner
) -> Callable[..., tuple[TrainState, Metrics, diagnostics.Evidence]]:
  """Returns the update of `build_learner` with evidence for its diagnosis."""
  return diagnostics.observing(
    learner, functools.partial(optimizers.trust_ratios, config.optimizer)
  )


def _batch_steps(config: schema.Config, plan: Plan) -> dict[str, Any]:
  """Returns how a batch is drawn, divided and augmented on the device."""
  views = make_views(config)
  steps: dict[str, Any] = {
    "microbatches": plan.microbatches,
    "augment": functools.partial(device_ops.apply_to_batch, views),
  }
  if config.data.placement == "device":
    stream = device_batches.Stream(
      views, config.seed, plan.num_examples, plan.batch_size
    )
    steps["draw"] = functools.partial(device_batches.draw, stream)
  return steps
