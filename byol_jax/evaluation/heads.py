"""Linear heads: a layer from features to the scores of classes."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from byol_jax.learning import losses

MOMENTUM = 0.9  # Grill et al. 2020, C.1 and D.3.


class Head(NamedTuple):
  """A linear layer; a stack of L layers has a leading axis [L].

  Attributes:
    w: [D, C].
    b: [C].
  """

  w: chex.Array
  b: chex.Array


def new_head(num_features: int, num_classes: int) -> Head:
  """Returns a layer of zeros; the loss is convex, so any start will do."""
  return Head(jnp.zeros((num_features, num_classes)), jnp.zeros((num_classes,)))


def stack(head: Head, count: int) -> Head:
  """Returns `count` copies of a layer with a leading axis."""
  return jax.tree.map(lambda x: jnp.stack([x] * count), head)


def unstack(heads: Head) -> list[Head]:
  """Returns the layers of a stack one by one."""
  return [Head(w, b) for w, b in zip(heads.w, heads.b, strict=True)]


def logits(head: Head, vectors: chex.Array) -> chex.Array:
  """Returns the scores [N, C] that a layer gives to vectors [N, D].

  NumPy arrays in both arguments give a NumPy array.
  """
  return vectors @ head.w + head.b[None]


def loss(head: Head, vectors: chex.Array, labels: chex.Array) -> chex.Array:
  """Returns the mean loss of a layer over a batch, a scalar.

  Args:
    head: the layer.
    vectors: [B, D].
    labels: [B] int32; for multi-label data, [B, C] of 0 and 1.

  Returns:
    The mean over examples of the softmax cross-entropy; for multi-label data,
    of the sum over classes of the binary cross-entropy.
  """
  scores = logits(head, vectors)
  if labels.ndim == 2:
    each = optax.sigmoid_binary_cross_entropy(scores, labels)
    return jnp.mean(jnp.sum(each, axis=1))
  return jnp.mean(losses.softmax_cross_entropy(scores, labels))


def sgd(learning_rate: chex.Numeric) -> optax.GradientTransformation:
  """Returns SGD with Nesterov momentum (Grill et al. 2020, C.1 and D.3).

  Args:
    learning_rate: the rate of this step; may be traced, as the state of the
      optimizer does not depend on it.
  """
  return optax.sgd(learning_rate, MOMENTUM, nesterov=True)
