"""The parts that protocols with classifiers share: choosing and scoring."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from byol_jax.evaluation import metrics
from byol_jax.evaluation.features import Features
from byol_jax.runtime import processes

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits


class Classifier(NamedTuple):
  """A classifier that a protocol has fitted to the train split.

  Attributes:
    name: precedes the metric in names of results, if a protocol fits several
      classifiers; else "".
    scores: from a split expression to the scores of all classes [N, C].
    details: its hyper-parameters and how they were chosen.
  """

  name: str
  scores: Callable[[str], np.ndarray]
  details: dict[str, Any]


def score_on_test_split(
  fit: Callable[[EvalModel, Splits], Iterator[Classifier]],
) -> Callable[[EvalModel, Splits], metrics.Measurements]:
  """Turns a function that fits classifiers into a protocol.

  The classifiers are scored by the data set's metric. They are fitted without
  the name of the test split, so that no choice can depend on it.
  """

  @functools.wraps(fit)
  def run(model: EvalModel, splits: Splits) -> metrics.Measurements:
    metric, seed = model.source.dataset.metric, model.run.config.seed
    for classifier in fit(model, splits._replace(test="")):
      measured = metrics.value_and_interval(
        metric,
        model.features(splits.test).labels,
        classifier.scores(splits.test),
        seed,
        model.source.class_names,
      )
      name = f"{classifier.name}_{metric}" if classifier.name else metric
      yield name, {**measured, **classifier.details}

  return run


def validation_value(model: EvalModel, scored: Features) -> float:
  """Returns the metric of class scores, or -1 if one of them is not finite.

  The primary process computes it for all: their rounding may differ, and all
  must make the same choice.

  Args:
    model: its data set names the metric.
    scored: class scores, as `vectors`, and labels of the validation examples.
  """

  def compute() -> float:
    if not np.all(np.isfinite(scored.vectors)):
      return -1.0
    return metrics.value(
      model.source.dataset.metric, scored.labels, scored.vectors
    )

  return processes.broadcast_from_primary(compute)


def choose(
  tried: Sequence[dict[str, Any]], values: Sequence[float], splits: Splits
) -> tuple[int, dict[str, Any]]:
  """Chooses the hyper-parameters with the best validation value.

  Args:
    tried: the hyper-parameters by name.
    values: their validation values.
    splits: the examples.

  Returns:
    The index of the best, the first of equals, and details for the results.
  """
  best = int(np.argmax(values))
  return best, {
    **tried[best],
    "tried": len(tried),
    "validation": values[best],
    "validation_examples": len(splits.validation),
  }


def log_spaced(ends: tuple[float, float], count: int) -> list[float]:
  """Returns numbers at equal ratios from one end to the other, inclusive."""
  return np.geomspace(ends[0], ends[1], count).tolist()


def num_steps(epochs: float, examples: int, batch_size: int) -> int:
  """Returns the number of steps in some epochs, at least 1."""
  return max(round(epochs * examples / batch_size), 1)


def usable_batch_size(configured: int, examples: int) -> int:
  """Returns a batch size of at most `examples` that the devices divide."""
  devices = jax.device_count()
  return max(min(configured, examples) // devices, 1) * devices
