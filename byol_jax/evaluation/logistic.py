"""Regularised logistic regression on frozen features, by L-BFGS.

The paper's linear transfer protocol (Grill et al. 2020, D.2): multinomial, no
augmentation, the strength of the l2 penalty chosen among 45.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.evaluation import linear
from byol_jax.evaluation.features import Features

# Largest element of the gradient of the summed loss, over the number of
# examples, at which a fit ends: scikit-learn's default.
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 300


class Standard(NamedTuple):
  """What brings every feature to mean 0 and variance 1.

  Attributes:
    mean: [D].
    scale: [D]; constant features are left as wide as they are.
  """

  mean: np.ndarray
  scale: np.ndarray

  def __call__(self, vectors: np.ndarray) -> np.ndarray:
    """The standardised vectors, [N, D] float32."""
    return (vectors - self.mean) / self.scale


def standard(vectors: np.ndarray) -> Standard:
  """The mean and deviation of features [N, D]."""
  scale = np.std(vectors, axis=0)
  return Standard(np.mean(vectors, axis=0), np.where(scale > 0, scale, 1))


def _objective(head, vectors, labels, l2):
  """The mean loss of one layer, penalised like scikit-learn's at C = 1 / l2."""
  penalty = 0.5 * l2 * jnp.sum(head.w**2) / len(labels)
  return linear.loss_of_head(head, vectors, labels) + penalty


@jax.jit
def _fit(head, vectors, labels, l2):
  """The layer at which the objective is smallest, from another one on."""
  optimizer = optax.lbfgs()

  def objective(head):
    return _objective(head, vectors, labels, l2)

  value_and_grad = optax.value_and_grad_from_state(objective)

  def step(carry):
    head, state, _, count = carry
    value, grad = value_and_grad(head, state=state)
    updates, state = optimizer.update(
      grad, state, head, value=value, grad=grad, value_fn=objective
    )
    return optax.apply_updates(head, updates), state, grad, count + 1

  def unfinished(carry):
    _, _, grad, count = carry
    largest = optax.tree.norm(grad, ord=jnp.inf)
    return (count == 0) | ((count < _MAX_ITERATIONS) & (largest > _TOLERANCE))

  start = (head, optimizer.init(head), head, jnp.zeros((), jnp.int32))
  return jax.lax.while_loop(unfinished, step, start)[0]


def path(
  features: Features, strengths: Iterable[float], num_classes: int
) -> Iterator[linear.Heads]:
  """Fits one layer for each strength of the penalty, each from the last on.

  Args:
    features: what is fitted to; standardise them for a penalty that treats
      all alike.
    strengths: of the l2 penalty on the summed loss, strongest first, so that
      each fit has little left to do.
    num_classes: labels lie in [0, num_classes).

  Yields:
    The layers, without a leading axis.
  """
  vectors, labels = jax.device_put(
    (np.asarray(features.vectors), features.labels)
  )
  head = linear.new_head(vectors.shape[1], num_classes)
  for l2 in strengths:
    head = _fit(head, vectors, labels, l2)
    yield head
