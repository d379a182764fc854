"""What one batch tells of the health of a training state.

A function of its own beside the update, which stays as it is: it is called at
intervals and changes nothing. Its diagnostics are:

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
from typing import Any

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.learning import learner, losses
from byol_jax.learning.learner import Batch, Metrics, TrainState
from byol_jax.models import networks
from byol_jax.runtime import devices

# Examples over all devices that ranks and pairs are computed of. Our choice: pairs
# grow with the square, and a batch has at least one full-rank view of 256
# projections, the paper's size, in twice as many examples.
_EXAMPLES = 512

Diagnose = Callable[..., Metrics]


def make_diagnose(
  network: hk.TransformedWithState,
  optimizer: optax.GradientTransformation,
  trust_ratios: Callable[[hk.Params, hk.Params], hk.Params],
  *,
  objective: learner.Objective = learner.BYOL,
  microbatches: int = 1,
  draw: Callable[..., Batch] = lambda batch, step, axis_name: batch,
  augment: Callable[[Batch], Batch] = lambda batch: batch,
) -> Diagnose:
  """Returns the function that diagnoses a training state on a batch.

  Args:
    network: as for `learner.make_learner`, like all others.
    optimizer: the whole chain.
    trust_ratios: from `optimizers.trust_ratios`.
    objective: what the update minimises.
    microbatches: only the first of so many parts of the batch is looked at, which
      needs no more memory than the update.
    draw: makes the batch from images on the device.
    augment: makes views from crops.

  Returns:
    A function of (state, batch, axis_name=None) to float32 scalars by name, the
    same on all devices.
  """

  def diagnose(
    state: TrainState, batch: Batch, axis_name: str | None = None
  ) -> Metrics:
    batch = draw(batch, state.step, axis_name)
    batch = augment(
      jax.tree.map(lambda x: x[: len(x) // microbatches], dict(batch))
    )
    labelled = learner.labelled_fraction(batch["label"], axis_name)

    def loss(params: hk.Params) -> chex.Array:
      return learner.loss_fn(
        network, params, state, batch, labelled, axis_name, objective
      )[0]

    grads = jax.grad(loss)(state.online_params)
    grads = devices.mean_over_devices(grads, axis_name)
    views = _both_networks(network, objective, state, batch, axis_name)
    updates, _ = optimizer.update(grads, state.opt_state, state.online_params)
    params = state.online_params
    return {
      **_of_outputs(*_sample(views, axis_name)),
      "target_distance": _target_distance(params, state.target_params),
      **_of_parts(params, grads, updates, trust_ratios(grads, params)),
    }

  return diagnose


def _both_networks(
  network: hk.TransformedWithState,
  objective: learner.Objective,
  state: TrainState,
  batch: Batch,
  axis_name: str | None,
) -> tuple[losses.BothViews, losses.BothViews]:
  """Returns what the online and the target network make of both views.

  Where the loss has no target network, the online network is its own.
  """
  online, online_state = learner.both_views(
    network, state.online_params, state.online_state, batch, axis_name
  )
  target, _ = objective.target_views(
    network, state, online_state, batch, axis_name
  )
  return online, target or online


def _sample(views: chex.ArrayTree, axis_name: str | None) -> Any:
  """Returns the outputs for at most `_EXAMPLES` examples of all devices."""
  size = len(jax.tree.leaves(views)[0])
  count = size * (1 if axis_name is None else jax.lax.axis_size(axis_name))
  # Every n-th, so that the examples do not depend on the number of devices.
  every = -(-count // _EXAMPLES)
  return devices.gather_examples(
    jax.tree.map(lambda x: x[::every], views), axis_name
  )


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
  difference = jax.tree.map(jnp.subtract, online, target)
  return _relative(difference, online)


def _relative(tree: chex.ArrayTree, to: chex.ArrayTree) -> chex.Array:
  return optax.tree.norm(tree) / jnp.maximum(optax.tree.norm(to), 1e-12)


def _of_parts(
  params: hk.Params, grads: hk.Params, updates: hk.Params, trust: hk.Params
) -> Metrics:
  """Returns norms and trust ratios by part."""
  metrics: Metrics = {}
  for part in ("encoder", "projector", "predictor"):
    own, grad, update, ratios = (
      _select(tree, part) for tree in (params, grads, updates, trust)
    )
    metrics[f"{part}_norm"] = optax.tree.norm(own)
    metrics[f"{part}_gradient"] = optax.tree.norm(grad)
    metrics[f"{part}_update"] = optax.tree.norm(update)
    metrics[f"{part}_step"] = _relative(update, own)
    if found := jax.tree.leaves(ratios):
      metrics[f"{part}_trust"] = jnp.median(jnp.stack(found))
  return metrics
