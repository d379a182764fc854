"""The protocol `geometry`: how features are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from byol_jax.evaluation import lidar, neighbours
from byol_jax.evaluation.features import Features, same_class
from byol_jax.evaluation.metrics import Measurements

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits

# The numbers of examples that RankMe and the metrics of pairs look at: RankMe's
# estimate settles at 25,600 (Garrido et al. 2023, section 3.1), and pairs grow
# with the square; the latter is our choice.
_RANK_EXAMPLES, _PAIR_EXAMPLES = 25_600, 4096


def run(model: EvalModel, splits: Splits) -> Measurements:
  """Yields the metrics of `measure` and of `lidar.measure` for the evaluated split."""
  yield from measure(model.features(splits.evaluated), model.run.config.seed)
  yield from lidar.measure(model, splits)


def measure(features: Features, seed: int) -> Measurements:
  """Yields metrics of the features' distribution.

  Args:
    features: of a split.
    seed: decides which examples are looked at.

  Yields:
    `("rank_me", ...)`, `("uniformity", ...)` and, for labelled examples,
    `("class_alignment", ...)`, each with the number of examples `looked_at`.
  """
  order = np.random.RandomState(seed).permutation(len(features.labels))
  sample = features.select(np.sort(order[:_RANK_EXAMPLES]))
  yield (
    "rank_me",
    {"value": rank_me(sample.vectors), "looked_at": len(sample.labels)},
  )
  sample = features.select(np.sort(order[:_PAIR_EXAMPLES]))
  vectors = neighbours.l2_normalize(sample.vectors)
  count = len(sample.labels)
  yield "uniformity", {"value": uniformity(vectors), "looked_at": count}
  if np.all(sample.labels >= 0):
    value = alignment(vectors, sample.labels)
    yield "class_alignment", {"value": value, "looked_at": count}


def rank_me(vectors: np.ndarray) -> float:
  """Returns the effective number of dimensions of features [N, D], at least 1.

  It is the effective rank of the singular values (Garrido et al. 2023, arXiv
  2210.02885, eq. 1).
  """
  values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
  return lidar.effective_rank(values)


def _squared_distances(vectors: np.ndarray) -> np.ndarray:
  """Returns the squared distances [N, N] of unit vectors [N, D]."""
  return 2 - 2 * vectors @ vectors.T


def uniformity(vectors: np.ndarray) -> float:
  """Returns how evenly unit vectors [N, D] fill the sphere; lower is more even.

  It is the logarithm of the mean over pairs of exp(-2 ||x - y||^2), 0 if all
  vectors are equal (Wang and Isola 2020, arXiv 2005.10242).
  """
  pairs = _squared_distances(vectors)[np.triu_indices(len(vectors), 1)]
  return float(np.log(np.mean(np.exp(-2 * pairs))))


def alignment(vectors: np.ndarray, labels: np.ndarray) -> float:
  """Returns the mean squared distance in [0, 4] of unit vectors of one class.

  This is Wang and Isola's alignment with examples of a class as the positive
  pairs; lower is closer. It is NaN if no class has two examples.
  """
  same = same_class(labels[:, None], labels[None], multi_label=labels.ndim == 2)
  same = np.triu(same, 1)
  if not same.any():
    return np.nan
  return float(np.mean(_squared_distances(vectors)[same]))
