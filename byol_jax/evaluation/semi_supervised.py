"""The protocol `semi_supervised`: fine-tuning on a fraction of the labels.

Grill et al. 2020, C.1. The validation examples serve for choosing only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

from byol_jax.evaluation import classifiers
from byol_jax.evaluation.classifiers import Classifier
from byol_jax.evaluation.features import Features
from byol_jax.evaluation.finetune import HParams, finetuned, make_scorer
from byol_jax.learning import schedules

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits


@classifiers.score_on_test_split
def run(model: EvalModel, splits: Splits) -> Iterator[Classifier]:
  """Yields one classifier per configured number of labels."""
  config = model.run.config
  options = config.evaluation.semi_supervised
  labels = model.features(splits.train).select(splits.fit).labels
  score = make_scorer(model)
  for wanted in options.labels:
    is_count = wanted > 1
    count = wanted if is_count else wanted * splits.num_train
    indices = stratified(labels, count, config.seed)
    name = f"{wanted}" if is_count else f"{100 * wanted:g}%"
    yield _fit(model, splits, indices, name, score)


def _fit(
  model: EvalModel,
  splits: Splits,
  indices: np.ndarray,
  name: str,
  score: Callable[..., Features],
) -> Classifier:
  """Returns the best classifier of the grid, fitted to some examples."""
  config = model.run.config
  options = config.evaluation.semi_supervised
  batch_size = classifiers.usable_batch_size(options.batch_size, len(indices))
  tried = [
    {"learning_rate": rate, "epochs": epochs}
    for rate in options.learning_rates
    for epochs in options.epochs
  ]
  grid = [
    HParams(
      schedules.peak_learning_rate(settings["learning_rate"], batch_size),
      0.0,
      classifiers.num_steps(settings["epochs"], len(indices), batch_size),
    )
    for settings in tried
  ]
  best, values = None, []
  for state in finetuned(model, splits.train, indices, grid, batch_size):
    scored = score(state, splits.train, splits.validation)
    values.append(classifiers.validation_value(model, scored))
    if np.argmax(values) == len(values) - 1:
      best = jax.device_get(state)  # A grid's states may not fit the device.
  _, details = classifiers.choose(tried, values, splits)
  return Classifier(
    name,
    lambda split: score(best, split).vectors,
    details | {"labels": len(indices), "batch_size": batch_size},
  )


def stratified(labels: np.ndarray, wanted: float, seed: int) -> np.ndarray:
  """Returns indices of a random subset with the classes' proportions.

  Args:
    labels: [N] int32, N at least 1; or multi-label [N, C], whose classes are
      ignored.
    wanted: the size of the subset.
    seed: seeds the choice.

  Returns:
    Sorted indices. Each class has its fraction of `wanted`, rounded, and at
    least one example.
  """
  if labels.ndim == 2:
    labels = np.zeros(len(labels), np.int32)
  fraction = min(wanted / len(labels), 1)
  random = np.random.RandomState(seed)
  chosen = []
  for label in np.unique(labels):
    indices = random.permutation(np.flatnonzero(labels == label))
    chosen.append(indices[: max(round(fraction * len(indices)), 1)])
  return np.sort(np.concatenate(chosen))
