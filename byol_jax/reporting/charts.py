"""Which metrics of a run are drawn together, and how."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from byol_jax.evaluation.metrics import METRICS
from byol_jax.reporting import line_chart, markup
from byol_jax.reporting.facts import Facts


class Chart(NamedTuple):
  """A chart of metrics that have one scale.

  Attributes:
    title: what they are.
    names: in `metrics.jsonl`, each with its label in the legend.
    low: the lower end of the scale; None for that of the values.
    high: likewise.
    percent: whether they are fractions.
    smooth: whether they are noisy.
  """

  title: str
  names: dict[str, str]
  low: float | None = None
  high: float | None = None
  percent: bool = False
  smooth: bool = True

  def draw(self, found: Sequence[line_chart.Series]) -> str:
    """Returns the chart with some curves."""
    return line_chart.draw(
      self.title,
      found,
      low=self.low,
      high=self.high,
      percent=self.percent,
      smooth=self.smooth,
    )


_LEARNING = (
  Chart("BYOL loss, 0 to 8", {"train/repr_loss": ""}, low=0),
  Chart(
    "Online classifier, training batches",
    {"train/top1_accuracy": "top-1", "train/top5_accuracy": "top-5"},
    low=0,
    high=1,
    percent=True,
  ),
  Chart(
    "tau, the part of the target that is kept",
    {"train/tau": ""},
    smooth=False,
  ),
  Chart("Learning rate", {"train/learning_rate": ""}, low=0, smooth=False),
)
_SPEED = (
  Chart("Images per second", {"train/images_per_second": ""}, low=0),
  Chart(
    "Time spent waiting for data",
    {"train/data_wait": ""},
    low=0,
    high=1,
    percent=True,
  ),
)
_KNOWN = {name for chart in (*_LEARNING, *_SPEED) for name in chart.names}


def learning(facts: Facts) -> str:
  """Returns the charts of learning, with every other metric that was logged."""
  others = [
    Chart(name, {name: ""}) for name in _logged([facts]) if name not in _KNOWN
  ]
  drawn = [
    *_of_run(facts, _LEARNING),
    *_evaluations(facts),
    *_of_run(facts, others),
  ]
  if not drawn:
    return markup.note("No metrics are logged yet.")
  steps = f"Up to step {facts.step:,}; the last values stand beside the titles."
  return markup.note(steps) + _grid(drawn)


def speed(facts: Facts) -> str:
  """Returns the charts of throughput and of the wait for data."""
  drawn = _of_run(facts, _SPEED)
  return _grid(drawn) if drawn else markup.note("No speed is logged yet.")


def compare(runs: Sequence[Facts]) -> str:
  """Returns a chart of each metric, with a curve for each run that has it."""
  known = [
    chart._replace(
      title=f"{chart.title}{f', {label}' if label else ''}", names={name: ""}
    )
    for chart in (*_LEARNING, *_SPEED)
    for name, label in chart.names.items()
  ]
  others = [
    Chart(name, {name: ""}) for name in _logged(runs) if name not in _KNOWN
  ]
  drawn = []
  for chart in (*known, *others):
    (name,) = chart.names
    found = [
      line_chart.series(run.rows, name, run.name, i)
      for i, run in enumerate(runs)
    ]
    if present := [one for one in found if one is not None]:
      drawn.append(chart.draw(present))
  return _grid(drawn) if drawn else markup.note("No metrics are logged yet.")


def _logged(runs: Iterable[Facts]) -> list[str]:
  """Returns the names of all metrics that runs have logged, sorted."""
  names = {name for run in runs for row in run.rows for name in row}
  return sorted(names - {"step"})


def _of_run(facts: Facts, charts: Iterable[Chart]) -> list[str]:
  """Returns those charts for which a run has logged anything."""
  drawn = []
  for chart in charts:
    found = [
      line_chart.series(facts.rows, name, label, i)
      for i, (name, label) in enumerate(chart.names.items())
    ]
    if present := [one for one in found if one is not None]:
      drawn.append(chart.draw(present))
  return drawn


def _evaluations(facts: Facts) -> list[str]:
  """Returns charts of what was evaluated at more than one step."""
  # An evaluation that was repeated replaces the earlier one.
  rows = [*{row["step"]: row for row in facts.evaluations}.values()]
  rows.sort(key=lambda row: row["step"] or 0)
  several = [
    one
    for name in sorted({name for row in rows for name in row} - {"step"})
    if (one := line_chart.series(rows, name, name)) and len(one.steps) > 1
  ]
  together = [x for x in several if x.label.split("/")[-1] in METRICS]
  others = [x for x in several if x.label.split("/")[-1] not in METRICS]
  drawn = []
  if together:
    coloured = [one._replace(color=i) for i, one in enumerate(together)]
    drawn.append(
      line_chart.draw("Evaluations", coloured, percent=True, smooth=False)
    )
  for one in others:
    drawn.append(
      line_chart.draw(one.label, [one._replace(label="")], smooth=False)
    )
  return drawn


def _grid(drawn: Iterable[str]) -> str:
  return f"<div class=charts>{''.join(drawn)}</div>\n"
