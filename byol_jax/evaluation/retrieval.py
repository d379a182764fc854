"""The protocol `retrieval`: which images lie nearest to each other.

It needs no labels. It writes the neighbours of a few images to `neighbours.npz`
in the workdir, from which the report draws them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from byol_jax.config import schema
from byol_jax.evaluation import neighbours
from byol_jax.evaluation.feature_cache import WRITE_REMEDY
from byol_jax.evaluation.features import Features, same_class
from byol_jax.evaluation.metrics import Measurements
from byol_jax.runtime import files, processes

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits

FILE = "neighbours.npz"
_NUM_EXAMPLES = 8  # Queries that fit on one page of the report.


def check(options: schema.EvaluationConfig, splits: Splits) -> None:
  """Raises `UserError` if the train split has too few neighbours."""
  available = splits.num_train
  if not splits.test:  # An example is not its own neighbour.
    available -= 1
  neighbours.check_k(
    "evaluation.retrieval.k", options.retrieval.k, available, splits.train
  )


def run(model: EvalModel, splits: Splits) -> Measurements:
  """Yields the metrics of `measure` for test images searched for in train.

  Without a test split, train is searched for itself. If the encoder is the
  trained one and the data set is its own, the neighbours of a few images are
  written to `neighbours.npz`.
  """
  options = model.run.config.evaluation.retrieval
  k, seed = options.k, model.run.config.seed
  bank, queries = model.features(splits.train), model.features(splits.evaluated)
  exclude_self = not splits.test
  yield from measure(bank, queries, k=k, exclude_self=exclude_self, seed=seed)
  if not model.is_online or model.run.config.evaluation.dataset:
    return
  found = examples(bank, queries, k=k, exclude_self=exclude_self)
  if processes.is_primary():
    with files.atomic_write(model.run.workdir / FILE, WRITE_REMEDY) as file:
      np.savez(
        file, query_split=splits.evaluated, bank_split=splits.train, **found
      )


def measure(
  bank: Features,
  queries: Features,
  *,
  k: int,
  exclude_self: bool,
  seed: int,
) -> Measurements:
  """Yields how near neighbours are, and how often they share a class.

  The nearest neighbour must be nearer than a random vector: where both cosines
  are near 1, the encoder has collapsed and gives every image the same features.

  Args:
    bank: the features that are searched.
    queries: the features whose neighbours are searched for.
    k: the number of neighbours.
    exclude_self: whether the queries are the bank; no query is then its own
      neighbour.
    seed: seeds the random pairs.

  Yields:
    `("precision_at_K", {"value": ..., "k": k})`, the fraction of neighbours
    that have a class in common with their query, if the queries have labels;
    then `("nearest_cosine", {"value": ...})` and
    `("random_cosine", {"value": ...})`, the mean cosines of the queries with
    their nearest and with a random vector.
  """
  query_indices = np.arange(len(queries.labels))
  indices, cosines = neighbours.nearest(
    queries.vectors,
    bank.vectors,
    k=k,
    self_indices=query_indices if exclude_self else None,
  )
  if np.all(queries.labels >= 0):
    agree = same_class(
      bank.labels[indices],
      queries.labels[:, None],
      multi_label=queries.labels.ndim == 2,
    )
    yield f"precision_at_{k}", {"value": float(np.mean(agree)), "k": k}
  yield "nearest_cosine", {"value": float(np.mean(cosines[:, 0]))}

  random = np.random.RandomState(seed)
  # Steps of at least 1 lead round the bank to any vector but the query itself.
  steps = random.randint(
    int(exclude_self), len(bank.labels), len(query_indices)
  )
  partners = bank.vectors[(query_indices + steps) % len(bank.labels)]
  random_cosines = np.sum(
    neighbours.l2_normalize(queries.vectors)
    * neighbours.l2_normalize(partners),
    axis=1,
  )
  yield "random_cosine", {"value": float(np.mean(random_cosines))}


def examples(
  bank: Features, queries: Features, *, k: int, exclude_self: bool
) -> dict[str, Any]:
  """Returns the neighbours of a few evenly spaced queries, for people to see.

  Args:
    bank: as for `measure`.
    queries: as for `measure`.
    k: the number of neighbours.
    exclude_self: as for `measure`.

  Returns:
    `{"queries": indices [R], "neighbours": indices [R, k], "cosines": [R, k]}`.
  """
  last = len(queries.labels) - 1
  shown = np.unique(np.linspace(0, last, _NUM_EXAMPLES).astype(np.int32))
  indices, cosines = neighbours.nearest(
    queries.vectors[shown],
    bank.vectors,
    k=k,
    self_indices=shown if exclude_self else None,
  )
  return {"queries": shown, "neighbours": indices, "cosines": cosines}
