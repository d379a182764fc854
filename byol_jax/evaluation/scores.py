"""What predictions are worth, and how sure that is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors

# Resamplings of the test examples, and the share of them that an interval holds:
# the usual choice (Efron and Tibshirani 1993).
_RESAMPLES = 1000
_CONFIDENCE = 0.95


class Metric(NamedTuple):
  """One way to judge scores of classes.

  Attributes:
    decide: from scores [N, C] to the predictions that the others take.
    value: of labels and predictions, a figure in [0, 1].
    by_class: the same for each class, NaN where that is not defined.
  """

  decide: Callable[[np.ndarray], np.ndarray]
  value: Callable[[np.ndarray, np.ndarray], float]
  by_class: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _likeliest(scores: np.ndarray) -> np.ndarray:
  return np.argmax(scores, axis=1)


def top1(labels: np.ndarray, predictions: np.ndarray) -> float:
  """The share of examples whose class was predicted, both [N]."""
  return float(np.mean(labels == predictions))


def recall(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
  """The share of each class that was predicted; both [N]."""
  counts = np.bincount(labels)
  right = np.bincount(labels[labels == predictions], minlength=len(counts))
  return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def average_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """VOC2007's 11-point average precision of each class.

  The mean, over recalls of 0, 0.1, ... 1, of the best precision at that recall
  or above (Everingham et al. 2010, section 4.2).

  Args:
    labels: [N, C], 1 where the class is there.
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
  """How good scores are.

  Args:
    metric: a name in `METRICS`.
    labels: [N] int32; for map11, [N, C] of 0 and 1.
    scores: [N, C], the higher, the likelier.

  Returns:
    A figure in [0, 1].

  Raises:
    UserError: if the metric is unknown.
  """
  if metric not in METRICS:
    raise errors.unknown_name("metric", metric, METRICS)
  return METRICS[metric].value(labels, METRICS[metric].decide(scores))


def judge(
  metric: str, labels: np.ndarray, scores: np.ndarray, seed: int
) -> dict[str, Any]:
  """A figure with its 95% interval over the choice of test examples.

  Args:
    metric: see `value`, as are labels and scores.
    labels: of the test examples.
    scores: of the classes.
    seed: of the resampling.

  Returns:
    `{"value": ..., "interval": [low, high], "worst_class": [class, figure]}`;
    the interval are percentiles of the figure over test sets drawn from this
    one with replacement.
  """
  found = value(metric, labels, scores)
  decide, of, by_class = METRICS[metric]
  predictions = decide(scores)
  random = np.random.default_rng(seed)
  resampled = []
  for _ in range(_RESAMPLES):
    drawn = random.integers(len(labels), size=len(labels))
    resampled.append(of(labels[drawn], predictions[drawn]))
  outside = (1 - _CONFIDENCE) / 2
  interval = np.quantile(resampled, [outside, 1 - outside])
  classes = by_class(labels, predictions)
  worst = int(np.nanargmin(classes))
  return {
    "value": found,
    "interval": interval.round(4).tolist(),
    "worst_class": [worst, round(float(classes[worst]), 4)],
  }
