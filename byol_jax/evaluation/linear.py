"""The linear protocol: one layer on frozen features, trained by SGD.

Grill et al. 2020, C.1: Nesterov momentum 0.9, no weight decay, learning rates
chosen on a held-out part of train. Their code (deepmind-research/byol,
eval_experiment.py) scales the rate with the batch and lets it fall along a
cosine without warm-up; so do we.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.learning import losses, optimizers

MOMENTUM = 0.9


class Heads(NamedTuple):
  """Linear layers that are trained side by side.

  Attributes:
    w: [L, D, C].
    b: [L, C].
  """

  w: chex.Array
  b: chex.Array


def new_heads(count: int, num_features: int, num_classes: int) -> Heads:
  """Layers that find all classes equally likely: the loss is convex."""
  return Heads(
    jnp.zeros((count, num_features, num_classes)),
    jnp.zeros((count, num_classes)),
  )


def new_head(num_features: int, num_classes: int) -> Heads:
  """One such layer, without a leading axis."""
  return jax.tree.map(lambda x: x[0], new_heads(1, num_features, num_classes))


def loss_of_head(
  head: Heads, vectors: chex.Array, labels: chex.Array
) -> chex.Array:
  """The mean loss of one layer, without a leading axis.

  Args:
    head: the layer.
    vectors: [B, D].
    labels: [B] int32, of one class an example; or [B, C] of 0 and 1, of any
      number of them, each of which is then a question of its own.

  Returns:
    The mean over examples of the cross-entropy, of several classes the sum.
  """
  logits = jnp.matmul(vectors, head.w) + head.b[None]
  if labels.ndim == 2:
    each = optax.sigmoid_binary_cross_entropy(logits, labels)
    return jnp.mean(jnp.sum(each, axis=1))
  return jnp.mean(losses.softmax_cross_entropy(logits, labels))


def sgd(learning_rate: chex.Numeric) -> optax.GradientTransformation:
  """SGD with Nesterov momentum; its state does not depend on the rate."""
  return optax.sgd(learning_rate, MOMENTUM, nesterov=True)


@jax.jit
def update(
  heads: Heads,
  opt_state: optax.OptState,
  learning_rates: chex.Array,
  vectors: chex.Array,
  labels: chex.Array,
) -> tuple[Heads, optax.OptState, chex.Array]:
  """One step of all layers on the same batch.

  Args:
    heads: the layers.
    opt_state: those of `sgd`, with a leading axis.
    learning_rates: [L], of this step.
    vectors: [B, D].
    labels: see `loss_of_head`.

  Returns:
    The layers and optimizer states after it, and the losses [L] before it.
  """

  def one(head, opt_state, learning_rate):
    loss, grads = jax.value_and_grad(loss_of_head)(head, vectors, labels)
    updates, opt_state = sgd(learning_rate).update(grads, opt_state)
    return optax.apply_updates(head, updates), opt_state, loss

  return jax.vmap(one)(heads, opt_state, learning_rates)


def fit(
  batches: Iterable[tuple[np.ndarray, np.ndarray]],
  *,
  learning_rates: Sequence[float],
  total_steps: int,
  num_features: int,
  num_classes: int,
) -> Heads:
  """Trains one layer for every learning rate, all in one pass over the data.

  Args:
    batches: at least `total_steps` pairs of vectors [B, D] and labels.
    learning_rates: at the first step, each falling along a cosine to 0.
    total_steps: how many batches are used.
    num_features: D.
    num_classes: of the labels.

  Returns:
    The layers, in the order of the rates; one that diverged holds NaN.
  """
  peaks = np.asarray(learning_rates, np.float32)
  cosine = optimizers.learning_rate_schedule(
    1.0, total_steps=total_steps, warmup_steps=0
  )
  heads = new_heads(len(peaks), num_features, num_classes)
  opt_state = jax.vmap(sgd(0.0).init)(heads)
  for step, (vectors, labels) in zip(range(total_steps), batches, strict=False):
    heads, opt_state, _ = update(
      heads, opt_state, peaks * float(cosine(step)), vectors, labels
    )
  return heads


def scores(head: Heads, vectors: np.ndarray) -> np.ndarray:
  """The logits [N, C] that one layer gives to vectors [N, D]."""
  return np.asarray(vectors) @ np.asarray(head.w) + np.asarray(head.b)
