"""Metrics of class scores, with their confidence intervals."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors

# Bootstrap samples of the test examples, and the fraction of them that an
# interval holds: the usual choice (Efron and Tibshirani 1993).
_RESAMPLES = 1000
_CONFIDENCE = 0.95

# What a protocol yields: the name of a metric, and its "value" among details.
Measurements = Iterator[tuple[str, dict[str, Any]]]


class Metric(NamedTuple):
  """A metric of class scores.

  Attributes:
    predict: from scores [N, C] to the predictions that the others take.
    value: from labels and predictions to a number in [0, 1].
    per_class: from labels and predictions to the value of each class [C], NaN
      where a class has none.
  """

  predict: Callable[[np.ndarray], np.ndarray]
  value: Callable[[np.ndarray, np.ndarray], float]
  per_class: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _likeliest(scores: np.ndarray) -> np.ndarray:
  return np.argmax(scores, axis=1)


def top1(labels: np.ndarray, predictions: np.ndarray) -> float:
  """Returns the fraction of examples whose label was predicted, both [N]."""
  return float(np.mean(labels == predictions))


def recall(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
  """Returns the recall of each class [C], from labels and predictions [N]."""
  counts = np.bincount(labels)
  right = np.bincount(labels[labels == predictions], minlength=len(counts))
  return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """Returns VOC2007's 11-point average precision of each class.

  It is the mean, over recalls of 0, 0.1, ... 1, of the best precision at that
  recall or above (Everingham et al. 2010, section 4.2).

  Args:
    labels: [N, C], 1 where an example has the class.
    scores: [N, C].

  Returns:
    [C], NaN where no example has the class.
  """
  order = np.argsort(-scores, axis=0, kind="stable")
  found = np.cumsum(np.take_along_axis(labels, order, axis=0), axis=0)
  total = found[-1]
  precision = found / np.arange(1, len(labels) + 1)[:, None]
  recalled = found / np.maximum(total, 1)
  best = [
    np.max(np.where(recalled >= point, precision, 0), axis=0)
    for point in np.linspace(0, 1, 11)
  ]
  return np.where(total > 0, np.mean(best, axis=0), np.nan)


METRICS: dict[str, Metric] = {
  "top1": Metric(_likeliest, top1, recall),
  "mean_per_class": Metric(
    _likeliest, lambda *both: float(np.nanmean(recall(*both))), recall
  ),
  "map11": Metric(
    lambda scores: scores,
    lambda *both: float(np.nanmean(average_precision(*both))),
    average_precision,
  ),
}


def value(metric: str, labels: np.ndarray, scores: np.ndarray) -> float:
  """Returns a metric of class scores, a number in [0, 1].

  Args:
    metric: a name in `METRICS`.
    labels: [N] int32; for map11, [N, C] of 0 and 1.
    scores: [N, C]; a higher score means a likelier class.

  Raises:
    UserError: if the metric is unknown.
  """
  if metric not in METRICS:
    raise errors.unknown_name("metric", metric, METRICS)
  return METRICS[metric].value(labels, METRICS[metric].predict(scores))


def value_and_interval(
  metric: str,
  labels: np.ndarray,
  scores: np.ndarray,
  seed: int,
  class_names: Sequence[str],
) -> dict[str, Any]:
  """Returns a metric with its 95% interval over the choice of test examples.

  Args:
    metric: a name in `METRICS`.
    labels: of the test examples, as for `value`.
    scores: of the test examples, as for `value`.
    seed: seeds the bootstrap.
    class_names: by label.

  Returns:
    `{"value": ..., "interval": [low, high], "worst_class": [name, value]}`.
    The interval lies between percentiles of the metric on test sets that are
    drawn from this one with replacement.
  """
  found = value(metric, labels, scores)
  predict, of, per_class = METRICS[metric]
  predictions = predict(scores)
  random = np.random.default_rng(seed)
  resampled = []
  for _ in range(_RESAMPLES):
    drawn = random.integers(len(labels), size=len(labels))
    resampled.append(of(labels[drawn], predictions[drawn]))
  outside = (1 - _CONFIDENCE) / 2
  interval = np.quantile(resampled, [outside, 1 - outside])
  classes = per_class(labels, predictions)
  worst = int(np.nanargmin(classes))
  return {
    "value": found,
    "interval": interval.round(4).tolist(),
    "worst_class": [class_names[worst], round(float(classes[worst]), 4)],
  }
