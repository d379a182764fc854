"""Optimizers, and the schedules of learning rate and tau.

A schedule is a function of the step, counted from 0, that returns a float32
scalar and holds its last value after the end.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from byol_jax import errors

Schedule = Callable[[chex.Numeric], chex.Numeric]


def decayed_and_adapted(params: chex.ArrayTree) -> chex.ArrayTree:
  """True for weights, False for biases and batch-norm parameters.

  The latter get neither weight decay nor LARS' adaptation (paper, 3.2).

  Args:
    params: Haiku's {module: {name: array}}.

  Returns:
    The same tree of bools.
  """
  return {
    module: {name: name != "b" and "norm" not in module for name in arrays}
    for module, arrays in params.items()
  }


def lars(
  learning_rate: Schedule,
  *,
  weight_decay: float,
  momentum: float,
  trust_coefficient: float,
) -> optax.GradientTransformation:
  """LARS as in the reference: the rate is applied after the momentum.

  `optax.lars` applies it before, which differs as soon as the rate changes.

  Args:
    learning_rate: the schedule.
    weight_decay: times the weights, added to their gradient.
    momentum: in [0, 1).
    trust_coefficient: scales ||weights|| / ||gradient||.

  Returns:
    The transformation (deepmind-research/byol/utils/optimizers.py).
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=decayed_and_adapted),
    optax.masked(
      optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient),
      decayed_and_adapted,
    ),
    optax.trace(decay=momentum),
    optax.scale_by_learning_rate(learning_rate),
  )


def sgd(
  learning_rate: Schedule,
  *,
  weight_decay: float,
  momentum: float,
  trust_coefficient: float,
) -> optax.GradientTransformation:
  """Stochastic gradient descent with momentum; no trust ratio.

  What small-scale recipes use (lightly, luckmatters); see `lars` for the
  arguments.
  """
  del trust_coefficient
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=decayed_and_adapted),
    optax.trace(decay=momentum),
    optax.scale_by_learning_rate(learning_rate),
  )


OPTIMIZERS = {"lars": lars, "sgd": sgd}


def make_optimizer(
  name: str,
  learning_rate: Schedule,
  *,
  weight_decay: float,
  momentum: float,
  trust_coefficient: float,
) -> optax.GradientTransformation:
  """Returns the optimizer of that name; raises `UserError` if unknown."""
  if name not in OPTIMIZERS:
    raise errors.unknown_name("optimizer.name", name, OPTIMIZERS)
  return OPTIMIZERS[name](
    learning_rate,
    weight_decay=weight_decay,
    momentum=momentum,
    trust_coefficient=trust_coefficient,
  )


def half_cosine(step: chex.Numeric, length: chex.Numeric) -> chex.Numeric:
  """Falls from 1 at step 0 to 0 at `length`, and stays."""
  progress = jnp.clip(step / jnp.maximum(length, 1), 0.0, 1.0)
  return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def peak_learning_rate(base: float, batch_size: int) -> float:
  """The base rate, which is one for 256 images, for a batch (paper, 3.2)."""
  return base * batch_size / 256


def learning_rate_schedule(
  peak: float, *, total_steps: int, warmup_steps: int
) -> Schedule:
  """Linear warm-up from 0, then a half cosine to 0 (paper, 3.2).

  Args:
    peak: see `peak_learning_rate`.
    total_steps: where the rate reaches 0.
    warmup_steps: where it peaks; if not below `total_steps`, all is warm-up.

  Returns:
    The schedule.
  """

  def schedule(step: chex.Numeric) -> chex.Numeric:
    step = jnp.asarray(step, jnp.float32)
    warming = peak * step / max(warmup_steps, 1)
    cooling = peak * half_cosine(
      step - warmup_steps, total_steps - warmup_steps
    )
    return jnp.where(step < warmup_steps, warming, cooling)

  return schedule


def _cosine_tau(base: float, total_steps: int) -> Schedule:
  return lambda step: (
    1.0
    - (1.0 - base) * half_cosine(jnp.asarray(step, jnp.float32), total_steps)
  )


def _constant_tau(base: float, total_steps: int) -> Schedule:
  del total_steps
  return lambda step: jnp.full(jnp.shape(step), base, jnp.float32)


def scaled_tau(base: float, kappa: float) -> float:
  """tau for batches `kappa` times as large: the same half-life in images.

  Busbridge et al. 2023 (arXiv 2307.13813); .996 at batch 4096 is .9995 at 512, as
  in the paper's appendix G.
  """
  return base**kappa


TAU_SCHEDULES = {"cosine": _cosine_tau, "constant": _constant_tau}


def tau_schedule(name: str, base: float, total_steps: int) -> Schedule:
  """The share of itself that the target keeps at each step.

  Args:
    name: cosine (from `base` at step 0 to 1 at the end; paper, 3.2) or
      constant.
    base: tau at step 0, in [0, 1].
    total_steps: where the cosine reaches 1.

  Returns:
    The schedule.

  Raises:
    UserError: if the name is unknown.
  """
  if name not in TAU_SCHEDULES:
    raise errors.unknown_name("ema.schedule", name, TAU_SCHEDULES)
  return TAU_SCHEDULES[name](base, total_steps)


def update_target(
  target: chex.ArrayTree, online: chex.ArrayTree, tau: chex.Numeric
) -> chex.ArrayTree:
  """The moving average tau * target + (1 - tau) * online, leaf by leaf.

  Written so that tau = 1 leaves the target as it is, bit for bit (paper, eq. 1;
  `online` are the parameters after the optimizer's step).
  """
  return jax.tree.map(lambda t, o: t + (1 - tau) * (o - t), target, online)
