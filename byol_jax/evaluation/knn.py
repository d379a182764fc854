"""The protocol `knn`: nearest neighbours vote for their classes.

Nothing is trained. Wu et al. 2018 (arXiv 1805.01978), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from byol_jax.config import schema
from byol_jax.evaluation import neighbours
from byol_jax.evaluation.classifiers import Classifier, score_on_test_split
from byol_jax.evaluation.features import Features

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits


def check(options: schema.EvaluationConfig, splits: Splits) -> None:
  """Raises `UserError` if the train split has too few neighbours."""
  neighbours.check_k(
    "evaluation.knn.k", options.knn.k, splits.num_train, splits.train
  )


@score_on_test_split
def run(model: EvalModel, splits: Splits) -> Iterator[Classifier]:
  """Yields one classifier, whose bank is the train split."""
  options = model.run.config.evaluation.knn
  bank = model.features(splits.train)

  def scores(split):
    return votes(
      bank,
      model.features(split).vectors,
      k=options.k,
      temperature=options.temperature,
      num_classes=model.source.num_classes,
    )

  details = {"k": options.k, "temperature": options.temperature}
  yield Classifier("", scores, details)


def votes(
  bank: Features,
  queries: np.ndarray,
  *,
  k: int,
  temperature: float,
  num_classes: int,
) -> np.ndarray:
  """Returns the fractions of the weighted votes that each class receives.

  Args:
    bank: the labelled examples.
    queries: [N, D].
    k: the number of neighbours that vote, at most the size of the bank.
    temperature: a neighbour with cosine c votes with weight
      exp(c / temperature).
    num_classes: the number of classes.

  Returns:
    [N, num_classes], in [0, 1].
  """
  nearest, cosines = neighbours.nearest(queries, bank.vectors, k=k)
  # Relative to the nearest neighbour, so that no weight overflows.
  weights = np.exp((cosines - cosines[:, :1]) / temperature)
  weights /= np.sum(weights, axis=1, keepdims=True)
  counts = np.zeros((len(queries), num_classes))
  if bank.labels.ndim == 2:
    for rank in range(k):  # All ranks at once would take k times the memory.
      counts += weights[:, rank, None] * bank.labels[nearest[:, rank]]
  else:
    rows = np.arange(len(queries))[:, None]
    np.add.at(counts, (rows, bank.labels[nearest]), weights)
  return counts
