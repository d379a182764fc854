"""Losses and accuracies per example; callers take the mean."""

import chex
import jax
import jax.numpy as jnp

# A vector with a smaller squared norm stays short instead of being scaled up.
_MIN_SQUARED_NORM = 1e-12  # deepmind-research/byol/utils/helpers.py


def l2_normalize(x: chex.Array) -> chex.Array:
  """Returns vectors [..., D] scaled to length 1; very short ones stay short."""
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
