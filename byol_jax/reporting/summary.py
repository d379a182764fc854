"""Results of several runs: of their seeds as a table, of a sweep as a figure."""

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax import errors, sweeps
from byol_jax.evaluation import results as results_lib
from byol_jax.reporting import report
from byol_jax.runtime import files
from byol_jax.training import runs as training_runs

_FILE, _SWEEP_FILE, _SWEEP_FIGURE = "results.md", "sweep.md", "sweep.png"
_REMEDY = "free space there and run again"

# What `results.json` calls the network, and the table's column.
_COLUMNS = {
  "online": "BYOL",
  "online, untrained": "untrained",
  "none": "pixels",
}
# What figures must agree in to be averaged.
_SAME = ("step", "train_split", "split", "examples")

# A data set, protocol and metric.
Row = tuple[str, str, str]


def workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  """The workdirs in a folder that hold results, by name."""
  return sorted(path.parent for path in folder.glob("*/results.json"))


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes `results.md`: every figure of the runs in a folder, over their seeds.

  As in the paper, a figure is the mean over seeds and half the range between
  the largest and the smallest; below it stands the widest 95% interval of one
  seed over the choice of test examples.

  Args:
    folder: holds workdirs of runs that only differ in `seed`.

  Returns:
    The file.

  Raises:
    UserError: if runs differ in anything else, or the file cannot be written.
  """
  runs = workdirs(folder)
  _check_alike(runs)
  results = [results_lib.read(run) for run in runs]
  seeds = [_settings(run)["seed"] for run in runs]
  lines = [
    f"Mean of {len(runs)} seeds ({', '.join(map(str, seeds))}) ± half their range;"
    " in brackets, the widest 95% interval of a seed over the test examples.",
    "",
    f"| | {' | '.join(_COLUMNS.values())} |",
    "|---|" + "---|" * len(_COLUMNS),
  ]
  rows = dict.fromkeys(
    _row(one) for result in results for one in result.values()
  )
  for row in rows:
    cells = [_cell(runs, results, row, network) for network in _COLUMNS]
    lines.append(f"| {' '.join(row)} | {' | '.join(cells)} |")
  path = folder / _FILE
  with files.writing(path, _REMEDY):
    path.write_text("\n".join(lines) + "\n")
  return path


def is_sweep(folder: pathlib.Path) -> bool:
  """Whether `launch/sweep.py` made the folder."""
  return (folder / sweeps.FILE).exists()


def write_sweep(folder: pathlib.Path) -> pathlib.Path:
  """Writes `sweep.md` and `sweep.png`: a sweep's figures against what was swept.

  As far as its runs have results; see `write` for what a figure is.

  Args:
    folder: holds `sweep.json` and workdirs `POINT/seed_N`.

  Returns:
    The table.

  Raises:
    UserError: if no run has results, runs differ in anything that was not
      swept, or a file cannot be written.
  """
  sweep = sweeps.from_json((folder / sweeps.FILE).read_text())
  runs = {name: workdirs(folder / name) for name in sweep.points}
  everything = [run for of_point in runs.values() for run in of_point]
  if not everything:
    raise errors.UserError(
      f"{folder} has no run with results yet; see log.txt in its workdirs."
    )
  swept = {key for point in sweep.points.values() for key in point.overrides}
  _check_alike(everything, swept)
  results = {run: results_lib.read(run) for run in everything}
  rows = dict.fromkeys(
    _row(one)
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
    cells = [_cell(runs[name], found, row, "online") for row in rows]
    lines.append(f"| {name} | {' | '.join(cells)} | {_paper(point)} |")
  path = folder / _SWEEP_FILE
  with files.writing(path, _REMEDY):
    report.draw_sweep(
      sweep,
      {
        name: [
          results[run][sweep.metric]["value"]
          for run in of_point
          if sweep.metric in results[run]
        ]
        for name, of_point in runs.items()
      },
      folder / _SWEEP_FIGURE,
    )
    path.write_text("\n".join(lines) + "\n")
  return path


def _paper(point: sweeps.Point) -> str:
  if point.paper is None:
    return "-"
  mean, half_range = point.paper
  return f"{mean:.1f} ± {half_range:.1f}" if half_range else f"{mean:.1f}"


def _settings(run: pathlib.Path) -> dict[str, Any]:
  path = run / "config.json"
  if not path.exists():
    raise errors.UserError(
      f"{path} is missing, so nothing tells what its results are of; move {run}"
      " elsewhere."
    )
  return training_runs.flat(json.loads(path.read_text()))


def _check_alike(
  runs: Sequence[pathlib.Path], swept: Collection[str] = ()
) -> None:
  """Raises `UserError` for the first other setting that runs differ in."""
  first, *others = runs
  expected = _settings(first)
  for other in others:
    settings = _settings(other)
    for key in sorted(expected.keys() | settings.keys()):
      if key in {"seed", *swept} or key.startswith(training_runs.FREE_KEYS):
        continue
      if settings.get(key) != expected.get(key):
        raise errors.UserError(
          f"{other} has {key}={settings.get(key)} and {first}"
          f" {expected.get(key)}; only runs that differ in"
          f" {', '.join(['seed', *sorted(swept)])} alone can be compared."
        )


def _row(result: Mapping[str, Any]) -> Row:
  return result["dataset"], result["protocol"], result["metric"]


def _cell(
  runs: Sequence[pathlib.Path],
  results: Sequence[Mapping[str, Any]],
  row: Row,
  network: str,
) -> str:
  found = {
    run: one
    for run, result in zip(runs, results, strict=True)
    for one in result.values()
    if _row(one) == row and one["network"] == network
  }
  if not found:
    return "-"
  first, *others = found
  for run in others:
    for key in _SAME:
      if found[run][key] != found[first][key]:
        raise errors.UserError(
          f"{run} has {' '.join(row)} with {key}={found[run][key]} and {first}"
          f" with {found[first][key]}; evaluate them alike to average them."
        )
  values = [one["value"] for one in found.values()]
  text = f"{np.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"
  if len(found) < len(results):
    text += f" ({len(found)} of {len(results)} seeds)"
  intervals = [one["interval"] for one in found.values() if "interval" in one]
  if intervals:
    low, high = max(intervals, key=lambda ends: ends[1] - ends[0])
    text += f" [{low:.3f}, {high:.3f}]"
  if "paper" in found[first]:
    text += f"; paper {found[first]['paper']:.3f}"
  return text
