"""Schedules of the learning rate.

A schedule is a function of the step, counted from 0, that returns a float32
scalar and keeps its last value after the end.
"""

from collections.abc import Callable

import chex
import jax.numpy as jnp

from byol_jax import errors

Schedule = Callable[[chex.Numeric], chex.Numeric]


def half_cosine(step: chex.Numeric, length: chex.Numeric) -> chex.Numeric:
  """Returns a half cosine from 1 at step 0 to 0 at `length` and after it.

  Unlike in `optax.cosine_decay_schedule`, the length may be 0 or traced; the
  values differ from optax' in the last digits.
  """
  progress = jnp.clip(step / jnp.maximum(length, 1), 0.0, 1.0)
  return 0.5 * (1.0 + jnp.cos(jnp.pi * progress))


def peak_learning_rate(base: float, batch_size: int) -> float:
  """Returns the rate for a batch; `base` is for 256 images (paper, 3.2)."""
  return base * batch_size / 256


def _constant(step: chex.Numeric, length: chex.Numeric) -> chex.Numeric:
  del length
  return jnp.ones_like(step)


# Goyal et al. 2017 (arXiv 1706.02677) divide by 10 after 30, 60 and 80 of 90 epochs.
_FALLS = (1 / 3, 2 / 3, 8 / 9)


def _step(step: chex.Numeric, length: chex.Numeric) -> chex.Numeric:
  falls = sum((step >= fall * length).astype(jnp.float32) for fall in _FALLS)
  return 0.1**falls


# Hägele et al. 2024 (arXiv 2405.18392) cool down in about the last fifth of the steps.
# Our choice: linearly.
_COOLDOWN = 0.2


def _wsd(step: chex.Numeric, length: chex.Numeric) -> chex.Numeric:
  left = 1.0 - step / jnp.maximum(length, 1)
  return jnp.clip(left / _COOLDOWN, 0.0, 1.0)


# By name: from a step after the warm-up and the steps from the warm-up to the end to
# the fraction of the peak. wsd is warm-up, stable, decay.
DECAYS: dict[str, Callable[[chex.Numeric, chex.Numeric], chex.Numeric]] = {
  "cosine": half_cosine,
  "constant": _constant,
  "step": _step,
  "wsd": _wsd,
}


def learning_rate_schedule(
  peak: float, *, total_steps: int, warmup_steps: int, decay: str = "cosine"
) -> Schedule:
  """Returns a linear warm-up from 0, then by default a half cosine to 0 (paper, 3.2).

  Args:
    peak: see `peak_learning_rate`.
    total_steps: the step at which the rate reaches the end of its decay.
    warmup_steps: the step at which the rate peaks; if it is not below
      `total_steps`, the whole run is warm-up.
    decay: a name in `DECAYS`.

  Raises:
    UserError: if the name is unknown.
  """
  if decay not in DECAYS:
    raise errors.unknown_name("optimizer.schedule", decay, DECAYS)
  fraction = DECAYS[decay]

  def schedule(step: chex.Numeric) -> chex.Numeric:
    step = jnp.asarray(step, jnp.float32)
    warming = peak * step / max(warmup_steps, 1)
    cooling = peak * fraction(step - warmup_steps, total_steps - warmup_steps)
    return jnp.where(step < warmup_steps, warming, cooling)

  return schedule
