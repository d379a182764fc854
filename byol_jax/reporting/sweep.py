"""The results of a sweep, as a picture and as a table."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import axes, figure, layout_engine, ticker

from byol_jax import errors, sweeps
from byol_jax.evaluation import runner
from byol_jax.reporting import style, tables
from byol_jax.runtime import files

_FILE, _FIGURE = "sweep.md", "sweep.png"


def is_sweep(folder: pathlib.Path) -> bool:
  """Whether `launch/sweep.py` made the folder."""
  return (folder / sweeps.FILE).exists()


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes `sweep.md` and `sweep.png`: a sweep's figures against what was swept.

  As far as its runs have results; see `tables.write` for what a figure is.

  Args:
    folder: holds `sweep.json` and workdirs `POINT/seed_N`.

  Returns:
    The table.

  Raises:
    UserError: if no run has results, runs differ in anything that was not
      swept, or a file cannot be written.
  """
  sweep = sweeps.from_json((folder / sweeps.FILE).read_text())
  runs = {name: tables.find_workdirs(folder / name) for name in sweep.points}
  everything = [run for of_point in runs.values() for run in of_point]
  if not everything:
    raise errors.UserError(
      f"{folder} has no run with results yet; see log.txt in its workdirs."
    )
  swept = {key for point in sweep.points.values() for key in point.overrides}
  tables.check_comparable(everything, swept)
  results = {run: runner.read_results(run) for run in everything}
  rows = dict.fromkeys(
    tables.row_of(one)
    for result in results.values()
    for one in result.values()
    if one["network"] == "online"
  )
  names = [" ".join(row) for row in rows]
  lines = [
    f"{sweep.title}: mean over seeds ± half their range; in brackets, the widest"
    " 95% interval of a seed over the test examples.",
    "",
    f"| {sweep.axis} | {' | '.join(names)} | paper, ImageNet |",
    "|---|" + "---|" * (len(rows) + 1),
  ]
  for name, point in sweep.points.items():
    found = [results[run] for run in runs[name]]
    cells = [tables.cell(runs[name], found, row, "online") for row in rows]
    lines.append(f"| {name} | {' | '.join(cells)} | {_paper(point)} |")
  path = folder / _FILE
  with files.report_write_errors(path, tables.REMEDY):
    draw(
      sweep,
      {
        name: [
          results[run][sweep.metric]["value"]
          for run in of_point
          if sweep.metric in results[run]
        ]
        for name, of_point in runs.items()
      },
      folder / _FIGURE,
    )
    path.write_text("\n".join(lines) + "\n")
  return path


def draw(
  sweep: sweeps.Sweep,
  values: Mapping[str, Sequence[float]],
  path: str | os.PathLike,
) -> None:
  """Draws a sweep's figures against what was swept, the paper's beside them.

  Args:
    sweep: what was swept.
    values: name of a point to its figure for each seed, in [0, 1].
    path: of the PNG.
  """
  theirs = {
    name: point.paper
    for name, point in sweep.points.items()
    if point.paper is not None
  }
  panels = 2 if theirs else 1
  fig = figure.Figure(
    figsize=(6 * panels, 4.5),
    dpi=style.DOTS_PER_INCH,
    layout=layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
  )
  ours, *other = fig.subplots(1, panels, squeeze=False)[0]
  mean_of = {
    name: float(np.mean(each)) for name, each in values.items() if each
  }
  ours.set_title(f"{sweep.title}: {sweep.metric}, here")
  ours.set_ylabel("mean and range of the seeds")
  _draw_points(
    ours,
    sweep,
    mean_of,
    {
      name: (mean - min(values[name]), max(values[name]) - mean)
      for name, mean in mean_of.items()
    },
    style.COLOUR,
  )
  for panel in other:
    panel.set_title(f"The paper's top-1 on ImageNet ({sweep.source})")
    _draw_points(
      panel,
      sweep,
      {name: mean / 100 for name, (mean, _) in theirs.items()},
      {name: (half / 100, half / 100) for name, (_, half) in theirs.items()},
      style.SECOND_COLOUR,
    )
  fig.savefig(path)


def _draw_points(
  panel: axes.Axes,
  sweep: sweeps.Sweep,
  means: Mapping[str, float],
  below_and_above: Mapping[str, tuple[float, float]],
  color: str,
) -> None:
  """Draws one curve of a sweep with what it ranges over."""
  panel.errorbar(
    [sweep.points[name].x for name in means],
    list(means.values()),
    yerr=np.array([below_and_above[name] for name in means]).T,
    color=color,
    marker="o",
    capsize=4,
  )
  places = [point.x for point in sweep.points.values()]
  if sweep.scale == "log":
    panel.set_xscale("log")
  if sweep.scale != "linear":
    panel.set_xticks(places, list(sweep.points))
    panel.xaxis.set_minor_locator(ticker.NullLocator())
  panel.set_xlabel(sweep.axis)
  panel.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  panel.grid(alpha=0.3)
  panel.spines[["top", "right"]].set_visible(False)


def _paper(point: sweeps.Point) -> str:
  if point.paper is None:
    return "-"
  mean, half_range = point.paper
  return f"{mean:.1f} ± {half_range:.1f}" if half_range else f"{mean:.1f}"
