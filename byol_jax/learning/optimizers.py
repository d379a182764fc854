"""The optimizers of the online network, as chains of optax transformations."""

from collections.abc import Callable

import chex
import haiku as hk
import jax.numpy as jnp
import optax

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.learning.schedules import Schedule


def exclude_bias_and_norm(params: chex.ArrayTree) -> chex.ArrayTree:
  """Returns True for weights, False for biases, norms and scales of channels.

  This is an optax mask: where it is True, weight decay and LARS' trust ratio
  apply (paper, 3.2). The name is the reference's.

  Args:
    params: Haiku's {module: {name: array}}.

  Returns:
    The same tree of bools.
  """
  return {
    module: {
      name: name not in ("b", "scale") and "norm" not in module
      for name in arrays
    }
    for module, arrays in params.items()
  }


def _scale_heads(
  config: schema.OptimizerConfig,
) -> optax.GradientTransformation:
  """Multiplies the updates of projector and predictor by their own factors."""
  factors = {
    "projector": config.projector_rate,
    "predictor": config.predictor_rate,
  }

  def scale(updates: chex.ArrayTree, params: chex.ArrayTree) -> chex.ArrayTree:
    del params
    return {
      module: {
        name: factors.get(module.split("/")[0], 1.0) * update
        for name, update in arrays.items()
      }
      for module, arrays in updates.items()
    }

  return optax.stateless(scale)


def lars(
  learning_rate: Schedule, config: schema.OptimizerConfig
) -> optax.GradientTransformation:
  """Returns LARS as in the reference: the rate is applied after the momentum.

  `optax.lars` applies the rate before the momentum, which differs as soon as
  the rate changes.

  Args:
    learning_rate: the schedule.
    config: its `weight_decay` times the weights is added to their gradient;
      `momentum` is in [0, 1); `trust_coefficient` scales ||weights|| /
      ||gradient|| (deepmind-research/byol/utils/optimizers.py).
  """
  return optax.chain(
    _weight_decay(config),
    _trust_ratio(config),
    optax.trace(decay=config.momentum),
    optax.scale_by_learning_rate(learning_rate),
  )


def _weight_decay(
  config: schema.OptimizerConfig,
) -> optax.GradientTransformation:
  return optax.add_decayed_weights(
    config.weight_decay, mask=exclude_bias_and_norm
  )


def _trust_ratio(
  config: schema.OptimizerConfig,
) -> optax.GradientTransformation:
  return optax.masked(
    optax.scale_by_trust_ratio(trust_coefficient=config.trust_coefficient),
    exclude_bias_and_norm,
  )


def trust_ratios(
  config: schema.OptimizerConfig, grads: hk.Params, params: hk.Params
) -> dict[str, dict[str, chex.Array]]:
  """Returns LARS' trust ratio of each weight; {} for other optimizers.

  Args:
    config: as for `lars`.
    grads: the gradient.
    params: {module: {name: array}}.

  Returns:
    {module: {name: scalar}}, without biases and batch-norm parameters.
  """
  if config.name != "lars":
    return {}

  def change(transformation, updates):
    return transformation.update(updates, transformation.init(params), params)[
      0
    ]

  before = change(_weight_decay(config), grads)
  after = change(_trust_ratio(config), before)
  return {
    module: {
      name: jnp.linalg.norm(after[module][name])
      / jnp.maximum(jnp.linalg.norm(before[module][name]), 1e-30)
      for name, is_scaled in names.items()
      if is_scaled
    }
    for module, names in exclude_bias_and_norm(params).items()
  }


def sgd(
  learning_rate: Schedule, config: schema.OptimizerConfig
) -> optax.GradientTransformation:
  """Returns stochastic gradient descent with momentum, without trust ratio.

  Small-scale implementations of BYOL train by it (lightly, luckmatters). See
  `lars` for the arguments.
  """
  return optax.chain(
    _weight_decay(config),
    optax.trace(decay=config.momentum),
    optax.scale_by_learning_rate(learning_rate),
  )


def adam(
  learning_rate: Schedule, config: schema.OptimizerConfig
) -> optax.GradientTransformation:
  """Returns Adam with weight decay in the gradient (Kingma and Ba 2015).

  `momentum` is its first beta; the second and epsilon are optax' defaults. See
  `lars` for the arguments.
  """
  return optax.chain(
    _weight_decay(config),
    optax.adam(learning_rate, b1=config.momentum),
  )


def adamw(
  learning_rate: Schedule, config: schema.OptimizerConfig
) -> optax.GradientTransformation:
  """Returns Adam with decoupled weight decay (Loshchilov and Hutter 2019).

  See `adam`.
  """
  return optax.adamw(
    learning_rate,
    b1=config.momentum,
    weight_decay=config.weight_decay,
    mask=exclude_bias_and_norm,
  )


def lion(
  learning_rate: Schedule, config: schema.OptimizerConfig
) -> optax.GradientTransformation:
  """Returns Lion, whose weight decay is decoupled (Chen et al. 2023).

  See `adam`.
  """
  return optax.lion(
    learning_rate,
    b1=config.momentum,
    weight_decay=config.weight_decay,
    mask=exclude_bias_and_norm,
  )


OPTIMIZERS: dict[
  str,
  Callable[[Schedule, schema.OptimizerConfig], optax.GradientTransformation],
] = {"lars": lars, "sgd": sgd, "adam": adam, "adamw": adamw, "lion": lion}


def make_optimizer(
  learning_rate: Schedule, config: schema.OptimizerConfig
) -> optax.GradientTransformation:
  """Returns the optimizer `config.name`; `UserError` if it is unknown."""
  if config.name not in OPTIMIZERS:
    raise errors.unknown_name("optimizer.name", config.name, OPTIMIZERS)
  optimizer = OPTIMIZERS[config.name](learning_rate, config)
  # Not in every chain, as checkpoints hold its structure.
  if config.clip:
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip), optimizer)
  if (config.projector_rate, config.predictor_rate) != (1, 1):
    optimizer = optax.chain(optimizer, _scale_heads(config))
  return optimizer
