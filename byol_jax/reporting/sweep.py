"""The results of a sweep, as a picture and as a table."""

import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import axes, ticker

from byol_jax import errors, sweeps
from byol_jax.evaluation import results as results_lib
from byol_jax.reporting import scores, style, tables

_FILE, _FIGURE = "sweep.md", "sweep.png"


def is_sweep(folder: pathlib.Path) -> bool:
  """Returns whether `launch/sweep.py` made the folder."""
  return (folder / sweeps.FILE).exists()


def find_workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the workdirs of all runs of a sweep, begun or not."""
  runs = sweeps.members(_read(folder / sweeps.FILE))
  return [folder / run.name for run in runs]


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes `sweep.md` and `sweep.png`, the results at each point of a sweep.

  A second table tells how well other metrics rank the runs by the sweep's.

  Runs without results are left out. `tables.write` explains the cells.

  Args:
    folder: holds `sweep.json` and workdirs `POINT/seed_N`.

  Returns:
    The path of the table.

  Raises:
    UserError: no run has results, runs differ in anything that was not swept,
      or a file cannot be written.
  """
  sweep = _read(folder / sweeps.FILE)
  results = {
    name: {
      run: results_lib.read(run) for run in tables.find_workdirs(folder / name)
    }
    for name in sweep.points
  }
  everything = {
    run: one for seeds in results.values() for run, one in seeds.items()
  }
  if not everything:
    raise errors.UserError(
      f"{folder} has no run with results yet; see log.txt in its workdirs."
    )
  swept = {key for point in sweep.points.values() for key in point.overrides}
  tables.check_comparable([*everything], swept)
  rows = tables.rows_of(everything.values(), ["online"])
  lines = [
    [
      name,
      *(tables.cell(results[name], row, "online") for row in rows),
      _health_cell(results[name]),
      _paper_cell(point),
    ]
    for name, point in sweep.points.items()
  ]
  draw(sweep, _metric_values(sweep, results), folder / _FIGURE)
  tables.write_table(
    folder / _FILE,
    f"{sweep.title}: mean over seeds ± half their range; in brackets, the"
    " widest 95% interval of a seed over the test examples.",
    [sweep.axis, *map(str, rows), "health", "paper, ImageNet"],
    lines,
    _scores(everything.values(), sweep.metric),
  )
  return folder / _FILE


def _read(path: pathlib.Path) -> sweeps.Sweep:
  try:
    return sweeps.from_json(path.read_text())
  except (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
  ) as error:
    raise errors.UserError(
      f"{path} is damaged; start launch/sweep.py again, which writes it and"
      " leaves finished runs alone."
    ) from error


def _scores(results: Iterable[tables.Results], metric: str) -> list[str]:
  """Returns a table of how well other metrics rank the runs, with its caption."""
  found = scores.rank_correlations(results, metric)
  words = f"How each score ranks the runs, beside their {metric}:"
  return ["", words, "", *found] if found else []


def _metric_values(
  sweep: sweeps.Sweep,
  results: Mapping[str, Mapping[pathlib.Path, tables.Results]],
) -> dict[str, list[float]]:
  """Returns the sweep's metric for each point and those seeds that have it."""
  return {
    name: [
      of_run[sweep.metric]["value"]
      for of_run in seeds.values()
      if sweep.metric in of_run
    ]
    for name, seeds in results.items()
  }


def _health_cell(workdirs: Iterable[pathlib.Path]) -> str:
  """Returns the verdicts on the runs of a point, - without any."""
  found = [results_lib.read_health(workdir) for workdir in workdirs]
  verdicts = [health["verdict"] for health in found if "verdict" in health]
  return ", ".join(dict.fromkeys(verdicts)) or "-"


def _paper_cell(point: sweeps.Point) -> str:
  if point.paper is None:
    return "-"
  mean, half_range = point.paper
  return f"{mean:.1f} ± {half_range:.1f}" if half_range else f"{mean:.1f}"


def draw(
  sweep: sweeps.Sweep,
  values: Mapping[str, Sequence[float]],
  path: str | os.PathLike,
) -> None:
  """Draws a metric over the points of a sweep, and the paper's next to it.

  Args:
    sweep: gives points, axis and titles.
    values: name of a point to the metric of each seed, in [0, 1].
    path: of the PNG.
  """
  paper = {
    name: point.paper
    for name, point in sweep.points.items()
    if point.paper is not None
  }
  panels = 2 if paper else 1
  fig, ((ours, *others),) = style.new_panels(6 * panels, 4.5, 1, panels)
  means = {name: float(np.mean(each)) for name, each in values.items() if each}
  ours.set_title(f"{sweep.title}: {sweep.metric}, here")
  ours.set_ylabel("mean and range of the seeds")
  ranges = {
    name: (mean - min(values[name]), max(values[name]) - mean)
    for name, mean in means.items()
  }
  _draw_points(ours, sweep, means, ranges, style.FIRST_COLOR)
  for panel in others:
    panel.set_title(f"The paper's top-1 on ImageNet ({sweep.source})")
    _draw_points(
      panel,
      sweep,
      {name: mean / 100 for name, (mean, _) in paper.items()},
      {name: (half / 100, half / 100) for name, (_, half) in paper.items()},
      style.SECOND_COLOR,
    )
  style.save(fig, path)


def _draw_points(
  panel: axes.Axes,
  sweep: sweeps.Sweep,
  means: Mapping[str, float],
  ranges: Mapping[str, tuple[float, float]],
  color: str,
) -> None:
  """Draws means over the points of a sweep, with error bars.

  Args:
    panel: to draw on.
    sweep: gives points, axis and scale.
    means: by name of the point.
    ranges: the lengths of the bar below and above each mean.
    color: of the curve.
  """
  panel.errorbar(
    [sweep.points[name].x for name in means],
    list(means.values()),
    yerr=np.array([ranges[name] for name in means]).T,
    color=color,
    marker="o",
    capsize=4,
    linestyle="none" if sweep.scale == "names" else "-",
  )
  if sweep.scale == "log":
    panel.set_xscale("log")
  if sweep.scale != "linear":
    ticks = [point.x for point in sweep.points.values()]
    panel.set_xticks(ticks, list(sweep.points))
    panel.xaxis.set_minor_locator(ticker.NullLocator())
  if sweep.scale == "names":
    panel.tick_params("x", labelrotation=30)
    for label in panel.get_xticklabels():
      label.set_horizontalalignment("right")
  panel.set_xlabel(sweep.axis)
  panel.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  style.finish_panel(panel)
