"""Other beginnings of the target network, other statistics of its batch norm, or none."""

from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.learning import learner, losses
from byol_jax.learning.schedules import Schedule
from byol_jax.learning.target import update_target


def starting_as_online(
  init: Callable[[chex.PRNGKey, learner.Batch], learner.TrainState],
) -> Callable[[chex.PRNGKey, learner.Batch], learner.TrainState]:
  """Returns an `init` whose target parameters are a copy of the online ones."""

  def init_with_copy(
    key: chex.PRNGKey, batch: learner.Batch
  ) -> learner.TrainState:
    state = init(key, batch)
    return state._replace(
      # An update donates the memory of each by itself.
      target_params=jax.tree.map(jnp.copy, state.online_params)
    )

  return init_with_copy


def no_target_views(
  network: hk.TransformedWithState,
  state: learner.TrainState,
  online_state: hk.State,
  batch: learner.Batch,
  axis_name: str | None,
) -> tuple[tuple[()], hk.State]:
  """Returns no outputs, as `target_views` of an `Objective` without a target network."""
  del network, online_state, batch, axis_name
  return (), state.target_state


def averaging_statistics(
  tau: Schedule,
) -> Callable[..., tuple[losses.BothViews, hk.State]]:
  """Returns `target_views` of an `Objective` that averages statistics.

  The target's batch norm does not use the statistics of the batch, but a moving
  average of the online network's running statistics, which follows them as the
  target's parameters follow the online ones (EMAN; Cai et al. 2021, arXiv
  2101.08482). In the first step it is the online network's statistics.

  Args:
    tau: the target's decay as a function of the step. With micro-batches, each of
      them averages once.
  """

  def target_views(
    network: hk.TransformedWithState,
    state: learner.TrainState,
    online_state: hk.State,
    batch: learner.Batch,
    axis_name: str | None,
  ) -> tuple[losses.BothViews, hk.State]:
    decay = jnp.where(state.step == 0, 0.0, tau(state.step))

    def average(target: chex.Array, online: chex.Array) -> chex.Array:
      if jnp.issubdtype(online.dtype, jnp.integer):  # A counter.
        return online
      return update_target(target, online, decay)

    statistics = jax.tree.map(average, state.target_state, online_state)
    outputs, _ = learner.both_views(
      network,
      state.target_params,
      statistics,
      batch,
      axis_name,
      is_training=False,
    )
    return outputs, statistics

  return target_views
