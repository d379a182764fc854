"""Gradients of a batch that is processed in parts, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.runtime import devices

if TYPE_CHECKING:
  from byol_jax.learning.learner import Batch, Metrics, Outputs, TrainState

# Examples over all devices whose outputs are observed. Our choice: pairs of them are
# compared, which grow with the square, and twice as many as the paper's projections
# have dimensions, 256, can fill these.
_OBSERVED = 512


def labelled_fraction(labels: chex.Array, axis_name: str | None) -> chex.Array:
  """Returns the fraction of labelled examples in a batch over all devices."""
  return devices.mean_over_devices(jnp.mean(labels >= 0), axis_name)


def accumulate(
  loss: Callable[..., tuple[chex.Array, Any]],
  state: TrainState,
  batch: Batch,
  microbatches: int,
  augment: Callable[[Batch], Batch],
  axis_name: str | None,
) -> tuple[hk.Params, tuple[hk.State, hk.State], Metrics, Outputs]:
  """Returns mean gradients, both last states, mean metrics and some outputs.

  Micro-batches are processed one after the other, so that the views and
  activations of only one are in memory.
  """
  labelled = labelled_fraction(batch["label"], axis_name)
  count = len(batch["label"])
  if axis_name is not None:
    count *= jax.lax.axis_size(axis_name)
  # Every n-th, so that the examples do not depend on the number of devices.
  every = -(-count // _OBSERVED)

  def views_of(part):
    with jax.named_scope("augment"):
      return augment(part)

  def add(carry, part):
    total, online_state, target_state = carry
    now = state._replace(online_state=online_state, target_state=target_state)
    grads, (online_state, target_state, metrics, outputs) = jax.grad(
      lambda params: loss(params, now, views_of(part), labelled, axis_name),
      has_aux=True,
    )(state.online_params)
    total = jax.tree.map(jnp.add, total, grads)
    some = jax.tree.map(lambda x: x[::every], outputs)
    return (total, online_state, target_state), (metrics, some)

  zeros = jax.tree.map(jnp.zeros_like, state.online_params)
  (total, online_state, target_state), (metrics, outputs) = jax.lax.scan(
    add,
    (zeros, state.online_state, state.target_state),
    jax.tree.map(
      lambda x: x.reshape(microbatches, -1, *x.shape[1:]), dict(batch)
    ),
    unroll=0 if microbatches == 1 else 1,  # A single part needs no loop.
  )
  return (
    jax.tree.map(lambda x: x / microbatches, total),
    (online_state, target_state),
    jax.tree.map(lambda x: jnp.mean(x, axis=0), metrics),
    jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs),
  )
