"""Schedules of the learning rate.

A schedule is a function of the step, counted from 0, that returns a float32
scalar and keeps its last value after the end.
"""

from collections.abc import Callable

import chex
import jax.numpy as jnp

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


def learning_rate_schedule(
  peak: float, *, total_steps: int, warmup_steps: int
) -> Schedule:
  """Returns a linear warm-up from 0, then a half cosine to 0 (paper, 3.2).

  Args:
    peak: see `peak_learning_rate`.
    total_steps: the step at which the rate reaches 0.
    warmup_steps: the step at which the rate peaks; if it is not below
      `total_steps`, the whole run is warm-up.
  """

  def schedule(step: chex.Numeric) -> chex.Numeric:
    step = jnp.asarray(step, jnp.float32)
    warming = peak * step / max(warmup_steps, 1)
    cooling = peak * half_cosine(
      step - warmup_steps, total_steps - warmup_steps
    )
    return jnp.where(step < warmup_steps, warming, cooling)

  return schedule
