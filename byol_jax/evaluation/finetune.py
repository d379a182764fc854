"""Fine-tuning: an encoder and a linear layer on it, trained on labels.

Grill et al. 2020, C.1 (few labels) and D.3 (transfer): SGD with Nesterov
momentum, random crops and flips, batch norm in training mode. Without
pretraining, the same is supervised training from scratch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.evaluation import linear
from byol_jax.learning import optimizers
from byol_jax.runtime import devices


class Recipe(NamedTuple):
  """How long and how fast.

  Attributes:
    learning_rate: at the first step; falls along a cosine to 0.
    weight_decay: times the weights, added to their gradient.
    total_steps: batches.
  """

  learning_rate: float
  weight_decay: float
  total_steps: int


class State(NamedTuple):
  """All that fine-tuning carries from step to step, without a device axis.

  The recipe is part of it, so that all recipes share one compiled update.
  """

  step: chex.Array
  recipe: Recipe
  params: hk.Params
  state: hk.State
  head: linear.Heads  # Without a leading axis.
  opt_state: optax.OptState


def new_state(
  recipe: Recipe, params: hk.Params, state: hk.State, head: linear.Heads
) -> State:
  """The state before the first step, of arrays that may be given away."""
  tree = (params, state, head)
  params, state, head = jax.tree.map(jnp.array, tree)
  return State(
    step=jnp.zeros((), jnp.int32),
    recipe=Recipe(*(jnp.float32(value) for value in recipe)),
    params=params,
    state=state,
    head=head,
    opt_state=linear.sgd(0.0).init((params, head)),
  )


def update(
  network: hk.TransformedWithState,
  now: State,
  batch: Mapping[str, chex.Array],
  axis_name: str | None = None,
  *,
  shared_statistics: bool = True,
) -> tuple[State, chex.Array]:
  """One step on a batch of labelled images.

  Args:
    network: from `networks.make_network`; projector and predictor, if it has
      them, get no gradient.
    now: the state.
    batch: `image` [B, H, W, C] in [0, 1] and `label`, see
      `linear.loss_of_head`.
    axis_name: of devices, over which gradients are averaged.
    shared_statistics: whether batch norm sees the images of all devices, so
      that their number changes nothing; the reference's sees each device's.

  Returns:
    The state after it, and the loss before it
    (deepmind-research/byol/eval_experiment.py).
  """

  def loss_fn(trained):
    params, head = trained
    outputs, state = network.apply(
      params,
      now.state,
      batch["image"],
      is_training=True,
      axis_name=axis_name if shared_statistics else None,
    )
    loss = linear.loss_of_head(head, outputs.embedding, batch["label"])
    return loss, state

  trained = (now.params, now.head)
  (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained)
  grads, loss = devices.mean_over((grads, loss), axis_name)
  recipe = now.recipe
  decay = optax.add_decayed_weights(
    recipe.weight_decay,
    mask=(
      optimizers.decayed_and_adapted(now.params),
      linear.Heads(True, False),
    ),
  )
  grads, _ = decay.update(grads, decay.init(trained), trained)
  falling = optimizers.half_cosine(now.step, recipe.total_steps)
  optimizer = linear.sgd(recipe.learning_rate * falling)
  updates, opt_state = optimizer.update(grads, now.opt_state)
  params, head = optax.apply_updates(trained, updates)
  after = State(now.step + 1, recipe, params, state, head, opt_state)
  return after, loss


def make_fit(network: hk.TransformedWithState) -> Callable[..., State]:
  """Returns what fine-tunes a network by any recipe, compiled once.

  The function takes parameters and batch-norm statistics, which stay as they
  are, at least as many batches as the recipe has steps, the recipe, and the
  numbers of features and classes; and returns the last state. If it diverged,
  that holds NaN.
  """

  def one(state, batch, axis_name):
    return update(network, state, batch, axis_name)

  mapped = devices.pmap_update(one)

  def fit(
    params: hk.Params,
    state: hk.State,
    batches: Iterable[dict[str, np.ndarray]],
    recipe: Recipe,
    *,
    num_features: int,
    num_classes: int,
  ) -> State:
    head = linear.new_head(num_features, num_classes)
    now = devices.replicate(new_state(recipe, params, state, head))
    steps = range(recipe.total_steps)
    for _, batch in zip(steps, devices.prefetch(batches), strict=False):
      now, _ = mapped(now, batch)
    return now

  return fit


def batch_norm_decay_rate(steps_per_epoch: float) -> float:
  """The paper's rule for running statistics over short epochs (D.3)."""
  return max(1 - 10 / steps_per_epoch, 0.9)


def stratified(labels: np.ndarray, wanted: float, seed: int) -> np.ndarray:
  """Places of a random subset in which classes are as frequent as in all.

  Args:
    labels: [N] int32; of several classes an example, [N, C], which are not
      looked at.
    wanted: how many.
    seed: decides which.

  Returns:
    Sorted places: of each class its share, rounded, and at least one.
  """
  if labels.ndim == 2:
    labels = np.zeros(len(labels), np.int32)
  share = min(wanted / len(labels), 1)
  random = np.random.RandomState(seed)
  chosen = []
  for label in np.unique(labels):
    places = random.permutation(np.flatnonzero(labels == label))
    chosen.append(places[: max(round(share * len(places)), 1)])
  return np.sort(np.concatenate(chosen))
