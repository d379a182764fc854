"""Nearest neighbours: how well classes cluster, with nothing trained."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from byol_jax.evaluation import features
from byol_jax.evaluation.features import Features


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

  nearest, cosines = features.nearest(queries, train.vectors, k=k)
  # Relative to the nearest, so that no weight overflows.
  weights = np.exp((cosines - cosines[:, :1]) / temperature)
  votes = np.zeros((len(queries), num_classes))
  voted_on = np.arange(len(queries))[:, None]
  np.add.at(votes, (voted_on, train.labels[nearest]), weights)
  return np.argmax(votes, axis=1).astype(np.int32)


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
