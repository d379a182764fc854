"""The target network: a moving average of the online network, and its decay tau."""

import chex
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.learning.schedules import Schedule, half_cosine


def update_target(
  target: chex.ArrayTree, online: chex.ArrayTree, tau: chex.Numeric
) -> chex.ArrayTree:
  """Returns the moving average tau * target + (1 - tau) * online, leaf by leaf.

  The formula leaves the target as it is, bit for bit, at tau = 1 (paper, eq. 1).

  Args:
    target: the target's parameters.
    online: the online parameters after the optimizer's step.
    tau: the decay, in [0, 1].
  """
  return jax.tree.map(lambda t, o: t + (1 - tau) * (o - t), target, online)


def scaled_tau(base: float, kappa: float) -> float:
  """Returns tau for batches `kappa` times as large: the same half-life in images.

  Busbridge et al. 2023 (arXiv 2307.13813); .996 at batch 4096 is .9995 at 512, as
  in the paper's appendix G.
  """
  return base**kappa


def _cosine_tau(base: float, total_steps: int) -> Schedule:
  return lambda step: (
    1.0
    - (1.0 - base) * half_cosine(jnp.asarray(step, jnp.float32), total_steps)
  )


def _constant_tau(base: float, total_steps: int) -> Schedule:
  del total_steps
  return lambda step: jnp.full(jnp.shape(step), base, jnp.float32)


TAU_SCHEDULES = {"cosine": _cosine_tau, "constant": _constant_tau}


def tau_schedule(name: str, base: float, total_steps: int) -> Schedule:
  """Returns tau, the fraction of itself that the target keeps, by step.

  Args:
    name: cosine (from `base` at step 0 to 1 at the end; paper, 3.2) or constant.
    base: tau at step 0, in [0, 1].
    total_steps: the step at which the cosine reaches 1.

  Raises:
    UserError: if the name is unknown.
  """
  if name not in TAU_SCHEDULES:
    raise errors.unknown_name("ema.schedule", name, TAU_SCHEDULES)
  return TAU_SCHEDULES[name](base, total_steps)
