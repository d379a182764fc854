"""How features lie on the sphere, whatever they are used for."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from byol_jax.evaluation import features, neighbours
from byol_jax.evaluation.features import Features

# Examples that are looked at: RankMe's estimate settles at 25,600 (section 3.1),
# and pairs grow with the square.
_EXAMPLES, _PAIRED = 25_600, 4096


def rank_me(vectors: np.ndarray) -> float:
  """The number of directions that features [N, D] make use of, at least 1.

  The exponential of the entropy of the singular values' shares (Garrido et al.
  2023, arXiv 2210.02885, eq. 1).
  """
  values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
  shares = values / max(np.sum(values), 1e-12) + 1e-7
  return float(np.exp(-np.sum(shares * np.log(shares))))


def _distances(vectors: np.ndarray) -> np.ndarray:
  """Squared, of all pairs of unit vectors."""
  return 2 - 2 * vectors @ vectors.T


def uniformity(vectors: np.ndarray) -> float:
  """How evenly unit vectors [N, D] fill the sphere: 0 where all are one.

  The logarithm of the mean over pairs of exp(-2 ||x - y||^2) (Wang and Isola
  2020, arXiv 2005.10242); the lower, the more evenly.
  """
  pairs = _distances(vectors)[np.triu_indices(len(vectors), 1)]
  return float(np.log(np.mean(np.exp(-2 * pairs))))


def alignment(vectors: np.ndarray, labels: np.ndarray) -> float:
  """The mean squared distance of two unit vectors of one class, in [0, 4].

  Wang and Isola's alignment with examples of a class as the positive pairs;
  the lower, the closer. NaN if no class has two.
  """
  same = features.share_a_class(
    labels[:, None], labels[None], several=labels.ndim == 2
  )
  same = np.triu(same, 1)
  return float(np.mean(_distances(vectors)[same])) if same.any() else np.nan


def run(examples: Features, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields what the features of a split look like as a cloud of points.

  Args:
    examples: of the split.
    seed: decides which examples are looked at.

  Yields:
    `("rank_me", ...)`, `("uniformity", ...)` and, of labelled examples,
    `("class_alignment", ...)`, each with the number of examples looked at.
  """
  order = np.random.RandomState(seed).permutation(len(examples.labels))
  some = examples.part(np.sort(order[:_EXAMPLES]))
  yield (
    "rank_me",
    {"value": rank_me(some.vectors), "looked_at": len(some.labels)},
  )
  some = examples.part(np.sort(order[:_PAIRED]))
  vectors, count = neighbours.unit(some.vectors), len(some.labels)
  yield "uniformity", {"value": uniformity(vectors), "looked_at": count}
  if np.all(some.labels >= 0):
    value = alignment(vectors, some.labels)
    yield "class_alignment", {"value": value, "looked_at": count}
