"""The results of several seeds as a table."""

import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax import errors
from byol_jax.evaluation import runner
from byol_jax.runtime import files
from byol_jax.training import runs as training_runs

_FILE = "results.md"

REMEDY = "free space there and run again"

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


def find_workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
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
  runs = find_workdirs(folder)
  check_comparable(runs)
  results = [runner.read_results(run) for run in runs]
  seeds = [_settings(run)["seed"] for run in runs]
  lines = [
    f"Mean of {len(runs)} seeds ({', '.join(map(str, seeds))}) ± half their range;"
    " in brackets, the widest 95% interval of a seed over the test examples.",
    "",
    f"| | {' | '.join(_COLUMNS.values())} |",
    "|---|" + "---|" * len(_COLUMNS),
  ]
  rows = dict.fromkeys(
    row_of(one) for result in results for one in result.values()
  )
  for row in rows:
    cells = [cell(runs, results, row, network) for network in _COLUMNS]
    lines.append(f"| {' '.join(row)} | {' | '.join(cells)} |")
  path = folder / _FILE
  with files.report_write_errors(path, REMEDY):
    path.write_text("\n".join(lines) + "\n")
  return path


def _settings(run: pathlib.Path) -> dict[str, Any]:
  path = run / "config.json"
  if not path.exists():
    raise errors.UserError(
      f"{path} is missing, so nothing tells what its results are of; move {run}"
      " elsewhere."
    )
  return training_runs.flat(json.loads(path.read_text()))


def check_comparable(
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


def row_of(result: Mapping[str, Any]) -> Row:
  """The row of a table that a result stands in."""
  return result["dataset"], result["protocol"], result["metric"]


def cell(
  runs: Sequence[pathlib.Path],
  results: Sequence[Mapping[str, Any]],
  row: Row,
  network: str,
) -> str:
  """The results of all seeds as one cell of a table."""
  found = {
    run: one
    for run, result in zip(runs, results, strict=True)
    for one in result.values()
    if row_of(one) == row and one["network"] == network
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
