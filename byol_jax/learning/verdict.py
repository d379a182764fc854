"""Says whether training is healthy, by which number, and what to try."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

HEALTHY = "healthy"
BARELY_STARTED = "barely started"
PARTIAL_COLLAPSE = "partial collapse"
COLLAPSED = "collapsed"
DIVERGING = "diverging"
# The verdicts that nobody need be warned of.
FINE = (HEALTHY, BARELY_STARTED)

Numbers = Mapping[str, float]


class Verdict(NamedTuple):
  """What a diagnosis means.

  Attributes:
    verdict: one of the names above.
    because: the number that says so, in words.
    remedy: what to try, in words.
    numbers: the diagnosis, see `diagnostics.diagnose`.
    start: the diagnosis before the first step; None if it is unknown.
  """

  verdict: str
  because: str
  remedy: str
  numbers: Numbers
  start: Numbers | None


class _Band(NamedTuple):
  """A band of a number, outside of which training is not healthy.

  Attributes:
    verdict: of a number outside.
    name: of the number.
    limit: its end.
    is_least: whether the limit is the least healthy number, not the largest.
    of_start: whether the number is taken relative to the one before training.
  """

  verdict: str
  name: str
  limit: float
  is_least: bool = False
  of_start: bool = False


# Calibrated on runs that were made to fail and on healthy ones, which
# docs/training.md tabulates. The first band that is left decides.
_BANDS = (
  _Band(DIVERGING, "encoder_norm", 10.0, of_start=True),
  _Band(DIVERGING, "encoder_step", 0.1),
  _Band(COLLAPSED, "projection_std", 0.15, is_least=True),
  _Band(PARTIAL_COLLAPSE, "projection_std", 0.5, is_least=True),
  _Band(PARTIAL_COLLAPSE, "projection_rank", 0.2, is_least=True, of_start=True),
  _Band(BARELY_STARTED, "prediction_cosine", 0.3, is_least=True),
)

# What to try: causes in the order in which they are likely.
_REMEDIES = {
  HEALTHY: "nothing to do",
  BARELY_STARTED: "train longer; if it stays so, raise"
  " optimizer.base_learning_rate, or lower optimizer.warmup_epochs or, in a short"
  " run, ema.base",
  PARTIAL_COLLAPSE: "lower optimizer.base_learning_rate or"
  " optimizer.weight_decay, raise ema.base or train.batch_size, or lengthen"
  " optimizer.warmup_epochs",
  COLLAPSED: "check that a predictor of two layers and batch norm over at least"
  " 16 images are there, raise ema.base, lower optimizer.base_learning_rate and"
  " optimizer.weight_decay, and start again",
  DIVERGING: "lower optimizer.base_learning_rate and optimizer.weight_decay, or"
  " lengthen optimizer.warmup_epochs, and start again",
}


def judge(numbers: Numbers, start: Numbers | None = None) -> Verdict:
  """Returns what a diagnosis means.

  Args:
    numbers: the diagnosis.
    start: that of the same run before its first step. Without it, bands relative to
      it are left out.

  Returns:
    The verdict.
  """

  def verdict(name: str, because: str) -> Verdict:
    return Verdict(name, because, _REMEDIES[name], numbers, start)

  for name, value in numbers.items():
    if not math.isfinite(value):
      return verdict(DIVERGING, f"{name} is not finite")
  for band in _BANDS:
    value = numbers[band.name]
    if band.of_start:
      if start is None:
        continue
      value = value / max(start[band.name], 1e-12)
    is_left = value < band.limit if band.is_least else value > band.limit
    if is_left:
      return verdict(band.verdict, _words(band, value, numbers, start))
  return verdict(HEALTHY, _spread(numbers, start))


def _words(
  band: _Band, value: float, numbers: Numbers, start: Numbers | None
) -> str:
  """Returns what is wrong with the number of a band, in words."""
  side = "below" if band.is_least else "above"
  if band.of_start:
    return (
      f"{band.name} is {numbers[band.name]:.3g}, {value:.2g} times that before"
      f" training, and healthy runs do not go {side} {band.limit:g} times"
    )
  before = f" ({start[band.name]:.3g} before training)" if start else ""
  return (
    f"{band.name} is {value:.2g}{before}, and healthy runs do not go {side}"
    f" {band.limit:g}"
  )


def _spread(numbers: Numbers, start: Numbers | None) -> str:
  """Returns how well the projections are spread, in words."""
  shown = []
  for name in ("projection_std", "projection_rank"):
    before = f" ({start[name]:.3g} before training)" if start else ""
    shown.append(f"{name} is {numbers[name]:.2g}{before}")
  return " and ".join(shown)


def describe(verdict: Verdict) -> str:
  """Returns a verdict in one line."""
  return f"{verdict.verdict}: {verdict.because}; {verdict.remedy}."


def to_json(verdict: Verdict) -> dict[str, Any]:
  """Returns a verdict as `results.json` holds it."""

  def finite(numbers):
    return {
      name: float(f"{value:.6g}") if math.isfinite(value) else None
      for name, value in numbers.items()
    }

  return {
    "value": float(verdict.verdict == HEALTHY),  # As every entry there has one.
    "verdict": verdict.verdict,
    "because": verdict.because,
    "try": verdict.remedy,
    "numbers": finite(verdict.numbers),
    "start": finite(verdict.start) if verdict.start else None,
  }
