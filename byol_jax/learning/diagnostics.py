"""What one batch tells of the health of a training state.

The update computes the outputs and the gradient anyway, so a diagnosis needs no pass of
the network. The diagnostics of an update on its batch are:

- `projection_std`: the standard deviation of the online projections on the unit
  sphere, times sqrt(d), mean over dimensions: 1 if they are spread evenly, 0 if
  they are all the same (Chen and He 2021, arXiv 2011.10566, section 4.1).
- `projection_rank`, `feature_rank`: `effective_rank` of the projections and of
  the encoder's features.
- `alignment`: mean squared distance, in [0, 4], of an image's two projections.
- `uniformity`: log of the mean over pairs of exp(-2 squared distance), at most
  0, which is a single point (both: Wang and Isola 2020, arXiv 2005.10242).
- `same_neighbour`: the largest fraction of examples whose nearest neighbour
  among the projections is one and the same example.
- `prediction_cosine`: of prediction and target projection of the other view.
- `target_cosine`: of online and target projection of the same view.
- `target_distance`: between online and target parameters of encoder and
  projector, relative to the norm of the online ones.
- `PART_norm`, `PART_gradient`, `PART_update`: norms of the parameters, of the
  gradient and of the update by this batch, for encoder, projector, predictor;
  `PART_step` is that of the update relative to that of the parameters.
- `PART_trust`: the median of LARS' trust ratios; absent for other optimizers.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.learning import losses
from byol_jax.learning.learner import Batch, Learner, Metrics, TrainState
from byol_jax.models import networks
from byol_jax.runtime import devices

_PARTS = ("encoder", "projector", "predictor")


class Evidence(NamedTuple):
  """What an update tells of itself.

  Attributes:
    numbers: `target_distance` and all of `PART_...`, of the state before the update,
      the same on all devices.
    online: outputs for both views of some examples, this device's, by the state before
      the update.
    target: those of the target network; () where the loss has none.
  """

  numbers: Metrics
  online: losses.BothViews
  target: losses.BothViews | tuple[()]


def observing(
  learn: Learner, trust_ratios: Callable[[hk.Params, hk.Params], hk.Params]
) -> Callable[..., tuple[TrainState, Metrics, Evidence]]:
  """Returns the update with `Evidence` as a third result.

  Args:
    learn: trains.
    trust_ratios: from `optimizers.trust_ratios`.
  """

  def update(
    state: TrainState, batch: Batch, axis_name: str | None = None
  ) -> tuple[TrainState, Metrics, Evidence]:
    new_state, metrics, seen = learn.observed_update(state, batch, axis_name)
    params = state.online_params
    trust = trust_ratios(seen.gradient, params)
    numbers = _of_parts(params, seen.gradient, seen.change, trust)
    numbers["target_distance"] = _target_distance(params, state.target_params)
    return new_state, metrics, Evidence(numbers, seen.online, seen.target)

  return update


def diagnose(
  numbers: Metrics,
  outputs: tuple[losses.BothViews, losses.BothViews | tuple[()]],
  axis_name: str | None = None,
) -> Metrics:
  """Returns all diagnostics, float32 scalars by name, the same on all devices.

  Args:
    numbers: those of an update's `Evidence`.
    outputs: `online` and `target` of that. Without a target network, the online network
      is its own.
    axis_name: of the devices that share the outputs.
  """
  online, target = devices.gather_examples(outputs, axis_name)
  return {**_of_outputs(online, target or online), **numbers}


def _of_outputs(
  online_views: losses.BothViews, target_views: losses.BothViews
) -> Metrics:
  """Returns the diagnostics of the networks' outputs for both views."""
  first, second = online_views
  online = losses.l2_normalize(first.projection)
  other = losses.l2_normalize(second.projection)
  target = losses.l2_normalize(target_views[0].projection)
  distance = losses.regression_loss(
    first.prediction, target_views[1].projection
  )
  cosines = jnp.matmul(online, online.T, precision=jax.lax.Precision.HIGHEST)
  itself = jnp.eye(len(online), dtype=bool)
  pairs = jnp.where(
    itself, 0.0, jnp.exp(4 * cosines - 4)
  )  # 2 - 2 cos: distance.
  nearest = jnp.argmax(jnp.where(itself, -jnp.inf, cosines), axis=1)
  count = len(online)
  return {
    "projection_std": jnp.mean(jnp.std(online, axis=0))
    * jnp.sqrt(float(online.shape[1])),
    "projection_rank": effective_rank(first.projection),
    "feature_rank": effective_rank(first.embedding),
    "alignment": jnp.mean(jnp.sum((online - other) ** 2, axis=1)),
    "uniformity": jnp.log(jnp.sum(pairs) / max(count * (count - 1), 1)),
    "same_neighbour": jnp.max(jnp.bincount(nearest, length=count)) / count,
    "prediction_cosine": 1 - jnp.mean(distance) / 2,
    "target_cosine": jnp.mean(jnp.sum(online * target, axis=1)),
  }


def effective_rank(vectors: chex.Array) -> chex.Array:
  """Returns the effective number of dimensions of vectors [N, D], at least 1.

  It is the exponential of the entropy of the normalised singular values (RankMe,
  Garrido et al. 2023, arXiv 2210.02885, eq. 1), at most min(N, D).
  """
  values = jnp.linalg.svd(vectors, compute_uv=False)
  fractions = values / jnp.maximum(jnp.sum(values), 1e-12) + 1e-7
  return jnp.exp(-jnp.sum(fractions * jnp.log(fractions)))


def part_of(module: str) -> str:
  """Returns the part of the network that a module belongs to."""
  return (
    "encoder" if networks.is_of_encoder(module) else module.split("/", 1)[0]
  )


def _select(
  params: Mapping[str, chex.ArrayTree], *parts: str
) -> dict[str, chex.ArrayTree]:
  return {name: params[name] for name in params if part_of(name) in parts}


def _target_distance(online: hk.Params, target: hk.Params) -> chex.Array:
  online, target = (
    _select(params, "encoder", "projector") for params in (online, target)
  )
  difference = optax.tree.norm(jax.tree.map(jnp.subtract, online, target))
  return difference / jnp.maximum(optax.tree.norm(online), 1e-12)


def _of_parts(
  params: hk.Params, gradient: hk.Params, change: hk.Params, trust: hk.Params
) -> Metrics:
  """Returns norms and trust ratios by part."""
  metrics: Metrics = {}
  for part in _PARTS:
    own, grad, update, ratios = (
      _select(tree, part) for tree in (params, gradient, change, trust)
    )
    norm, moved = optax.tree.norm(own), optax.tree.norm(update)
    metrics[f"{part}_norm"] = norm
    metrics[f"{part}_gradient"] = optax.tree.norm(grad)
    metrics[f"{part}_update"] = moved
    metrics[f"{part}_step"] = moved / jnp.maximum(norm, 1e-12)
    if found := jax.tree.leaves(ratios):
      metrics[f"{part}_trust"] = jnp.median(jnp.stack(found))
  return metrics
