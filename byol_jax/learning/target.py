"""The target network: a moving average of the online network, and its decay tau."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.learning.schedules import DECAYS, Schedule


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


def tau_of_half_life(images: float, batch_size: int) -> float:
  """Returns the tau at which the target forgets half of its past in so many images.

  This is what Busbridge et al. 2023 (arXiv 2307.13813) keep when batches change: the
  target keeps tau ** n of its past in n steps of `batch_size` images.
  """
  return 0.5 ** (batch_size / images)


def _rising(decay: str) -> Callable[[float, int], Schedule]:
  """Returns the schedule in which 1 - tau falls as a learning rate does."""
  fraction = DECAYS[decay]
  return lambda base, total_steps: (
    lambda step: (
      1.0 - (1.0 - base) * fraction(jnp.asarray(step, jnp.float32), total_steps)
    )
  )


def _constant_tau(base: float, total_steps: int) -> Schedule:
  del total_steps
  return lambda step: jnp.full(jnp.shape(step), base, jnp.float32)


# By name: from tau at step 0 and the steps of the run to tau by step. Our choice: step
# has the steps of the learning rate, as Mean Teacher (arXiv 1703.01780), whose tau is
# .99 at first and .999 later, divides 1 - tau by 10.
TAU_SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {
  "cosine": _rising("cosine"),
  "constant": _constant_tau,
  "step": _rising("step"),
}


def tau_schedule(name: str, base: float, total_steps: int) -> Schedule:
  """Returns tau, the fraction of itself that the target keeps, by step.

  Args:
    name: cosine (from `base` at step 0 to 1 at the end; paper, 3.2), constant, or
      step (1 - tau becomes a tenth after 1/3, 2/3 and 8/9 of the run).
    base: tau at step 0, in [0, 1].
    total_steps: of the run.

  Raises:
    UserError: if the name is unknown.
  """
  if name not in TAU_SCHEDULES:
    raise errors.unknown_name("ema.schedule", name, TAU_SCHEDULES)
  return TAU_SCHEDULES[name](base, total_steps)
