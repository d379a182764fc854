"""Nearest neighbours: how well classes cluster, with nothing trained."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import parallel
from byol_jax.evaluation.features import Features

_CHUNK = 256  # Queries at a time: bounds the [queries, bank] similarities.


def _unit(vectors: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(norms, 1e-12)


def predict(
  train: Features,
  queries: np.ndarray,
  *,
  k: int,
  temperature: float,
  num_classes: int,
) -> np.ndarray:
  """Classifies by the weighted vote of the nearest training vectors.

  Args:
    train: the bank.
    queries: [N, D].
    k: how many neighbours vote, at most the size of the bank.
    temperature: a neighbour of cosine c votes with weight exp(c / temperature).
    num_classes: labels lie in [0, num_classes).

  Returns:
    [N] int32 (Wu et al. 2018, section 3.4).
  """

  def vote(bank, query):
    vectors, labels = bank
    cosines, nearest = jax.lax.top_k(query @ vectors.T, k)
    # Relative to the nearest, so that no weight overflows.
    weights = jnp.exp((cosines - cosines[:, :1]) / temperature)
    votes = jax.nn.one_hot(labels[nearest], num_classes) * weights[..., None]
    return jnp.argmax(jnp.sum(votes, axis=1), axis=-1).astype(jnp.int32)

  mapped = parallel.pmap_examples(vote)
  bank = jax.device_put((_unit(train.vectors), train.labels))
  queries = _unit(queries)
  starts = range(0, len(queries), _CHUNK)
  return np.concatenate([mapped(bank, queries[i : i + _CHUNK]) for i in starts])


def run(
  train: Features,
  test: Features,
  *,
  k: int,
  temperature: float,
  num_classes: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the share of test examples that their neighbours classify rightly.

  Args:
    train: what votes.
    test: what is classified.
    k: see `predict`, as are temperature and num_classes.
    temperature: of the votes.
    num_classes: of the labels.

  Yields:
    `("top1", {"value": accuracy in [0, 1], ...what it was made with})`.
  """
  predictions = predict(
    train, test.vectors, k=k, temperature=temperature, num_classes=num_classes
  )
  yield (
    "top1",
    {
      "value": float(np.mean(predictions == test.labels)),
      "k": k,
      "temperature": temperature,
    },
  )
