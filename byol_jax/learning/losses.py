"""BYOL's loss; and losses and accuracies per example, of which callers take the mean."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from byol_jax.models.networks import Outputs

# The outputs of one network for view 1 and view 2, each [B, D], maybe of the part of
# a batch that one of several devices holds.
BothViews = tuple[Outputs, Outputs]
# From (online, target, axis_name=None) to a scalar. The mean over the devices on the
# axis is the loss of the whole batch.
RepresentationLoss = Callable[..., chex.Array]

# A vector with a smaller squared norm stays short instead of being scaled up.
_MIN_SQUARED_NORM = 1e-12  # deepmind-research/byol/utils/helpers.py


def l2_normalize(x: chex.Array) -> chex.Array:
  """Returns vectors [..., D] of unit length, or 0 where they vanish."""
  squared = jnp.sum(x**2, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, _MIN_SQUARED_NORM))


def regression_loss(
  prediction: chex.Array, projection: chex.Array
) -> chex.Array:
  """Returns the squared distance of two directions, 2 - 2 cos.

  Args:
    prediction: [B, D], of the online network.
    projection: [B, D], of the target network; the caller stops its gradient.

  Returns:
    [B], in [0, 4] (Grill et al. 2020, eq. 2).
  """
  chex.assert_equal_shape([prediction, projection])
  chex.assert_rank(prediction, 2)
  cosine = jnp.sum(l2_normalize(prediction) * l2_normalize(projection), axis=-1)
  return 2 - 2 * cosine


def byol_loss(
  online: BothViews, target: BothViews, axis_name: str | None = None
) -> chex.Array:
  """Returns BYOL's loss (Grill et al. 2020, eq. 2).

  It compares the online network's prediction for each view with the target
  network's projection of the other view, and adds both directions.

  Args:
    online: outputs of the online network for both views.
    target: outputs of the target network, which get no gradient.
    axis_name: not used, as each image counts by itself.

  Returns:
    The mean over the images, in [0, 8].
  """
  del axis_name
  stop = jax.lax.stop_gradient
  return jnp.mean(
    regression_loss(online[0].prediction, stop(target[1].projection))
    + regression_loss(online[1].prediction, stop(target[0].projection))
  )


def softmax_cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
  """Returns the cross-entropy of each example, 0 where its label is unknown.

  Args:
    logits: [B, C].
    labels: [B] int32 in [0, C), or -1 where unknown.

  Returns:
    [B], at least 0.
  """
  chex.assert_rank([logits, labels], [2, 1])
  one_hot = jax.nn.one_hot(labels, logits.shape[-1])  # All zeros for -1.
  return -jnp.sum(one_hot * jax.nn.log_softmax(logits), axis=-1)


def topk_correct(logits: chex.Array, labels: chex.Array, k: int) -> chex.Array:
  """Returns 1 where the label is among the k largest logits, else 0.

  Ties count against the example, so that constant logits (of a collapsed or
  untrained classifier) score 0 and not 1.

  Args:
    logits: [B, C].
    labels: [B] int32; -1 (unknown) is never correct.
    k: at least 1; with k >= C every labelled example is correct.

  Returns:
    [B] float32.
  """
  chex.assert_rank([logits, labels], [2, 1])
  own = jnp.take_along_axis(logits, jnp.maximum(labels, 0)[:, None], axis=-1)
  rank = jnp.sum(logits >= own, axis=-1)  # 1 is the best; 0 is a NaN.
  correct = (labels >= 0) & (rank >= 1) & (rank <= k)
  return correct.astype(jnp.float32)
