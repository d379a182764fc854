"""Nearest neighbours: how well classes cluster, with nothing trained."""

import numpy as np

from byol_jax.evaluation import neighbours
from byol_jax.evaluation.features import Features


def scores(
  train: Features,
  queries: np.ndarray,
  *,
  k: int,
  temperature: float,
  num_classes: int,
) -> np.ndarray:
  """The shares of the nearest training vectors' weighted votes.

  Args:
    train: the bank.
    queries: [N, D].
    k: how many neighbours vote, at most the size of the bank.
    temperature: a neighbour of cosine c votes with weight exp(c / temperature).
    num_classes: of the labels.

  Returns:
    [N, num_classes], in [0, 1] (Wu et al. 2018, section 3.4).
  """
  nearest, cosines = neighbours.nearest(queries, train.vectors, k=k)
  # Relative to the nearest, so that no weight overflows.
  weights = np.exp((cosines - cosines[:, :1]) / temperature)
  weights /= np.sum(weights, axis=1, keepdims=True)
  votes = np.zeros((len(queries), num_classes))
  if train.labels.ndim == 2:
    for rank in range(k):  # All at once would be k times as large.
      votes += weights[:, rank, None] * train.labels[nearest[:, rank]]
  else:
    voted_on = np.arange(len(queries))[:, None]
    np.add.at(votes, (voted_on, train.labels[nearest]), weights)
  return votes
