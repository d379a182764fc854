"""Tables of results over the seeds of one run."""

import os
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.evaluation.eval_model import ONLINE, PIXELS, RANDOM
from byol_jax.evaluation.results import NETWORKS
from byol_jax.evaluation.results import read as read_results
from byol_jax.runtime import files
from byol_jax.training import saved_settings

_FILE = "results.md"
REMEDY = "free space there and run again"  # Where a table cannot be written.

# The network of a result in `results.json`, and its column of the table.
COLUMNS = {
  NETWORKS[ONLINE]: "BYOL",
  NETWORKS[RANDOM]: "untrained",
  NETWORKS[PIXELS]: "pixels",
}
# Results must agree in these keys to be averaged.
_SAME_KEYS = ("step", "train_split", "split", "examples")

# The contents of a workdir's `results.json`: name to result.
Results = Mapping[str, Mapping[str, Any]]


class Row(NamedTuple):
  """A row of a table: a metric of a protocol on a data set."""

  dataset: str
  protocol: str
  metric: str

  def __str__(self) -> str:
    return " ".join(self)


def find_workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the workdirs in a folder that hold results, sorted by name."""
  return sorted(path.parent for path in folder.glob("*/results.json"))


def with_results(workdirs: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Returns those workdirs that hold results."""
  return [path for path in workdirs if (path / "results.json").exists()]


def write(folder: pathlib.Path) -> pathlib.Path:
  """Writes `results.md`, the results of a folder's runs over their seeds.

  As in the paper, a cell is the mean over seeds and half the range between the
  largest and the smallest value. The widest 95% interval of one seed over the
  choice of test examples follows in brackets.

  Args:
    folder: holds workdirs of runs that differ in `seed` only.

  Returns:
    The path of the table.

  Raises:
    UserError: runs differ in anything else, or the file cannot be written.
  """
  results = {run: read_results(run) for run in find_workdirs(folder)}
  check_comparable([*results])
  seeds = ", ".join(str(_settings(run)["seed"]) for run in results)
  path = folder / _FILE
  write_table(
    path,
    f"Mean of {len(results)} seeds ({seeds}) ± half their range; in brackets,"
    " the widest 95% interval of a seed over the test examples.",
    ["", *COLUMNS.values()],
    [
      [str(row), *(cell(results, row, network) for network in COLUMNS)]
      for row in rows_of(results.values())
    ],
  )
  return path


def write_table(
  path: pathlib.Path,
  caption: str,
  header: Sequence[str],
  lines: Iterable[Sequence[str]],
  below: Sequence[str] = (),
) -> None:
  """Writes a caption and a Markdown table; `UserError` if it cannot.

  Args:
    path: of the file.
    caption: stands above the table.
    header: of the columns.
    lines: the cells of each line.
    below: lines of text below the table.
  """
  text = [caption, "", *markdown(header, lines), *below]
  with files.atomic_write(path, REMEDY) as file:
    file.write_text("\n".join(text) + "\n")


def markdown(
  header: Sequence[str], lines: Iterable[Sequence[str]]
) -> list[str]:
  """Returns the lines of a Markdown table.

  Args:
    header: of the columns.
    lines: the cells of each line.
  """
  return [
    "|" + "|".join(f" {name} " if name else " " for name in header) + "|",
    "|" + "---|" * len(header),
    *(f"| {' | '.join(line)} |" for line in lines),
  ]


def rows_of(
  results: Iterable[Results], networks: Collection[str] = tuple(COLUMNS)
) -> list[Row]:
  """Returns the rows that a table of results has, in order of appearance.

  Args:
    results: of the runs.
    networks: only their results count.
  """
  return list(
    dict.fromkeys(
      row_of(name, result)
      for of_run in results
      for name, result in of_run.items()
      if result["network"] in networks
    )
  )


def names_of(rows: Sequence[Row]) -> list[str]:
  """Returns the names of rows, without the data set if there is one only."""
  several = len({row.dataset for row in rows}) > 1
  return [
    str(row) if several else f"{row.protocol} {row.metric}" for row in rows
  ]


def row_of(name: str, result: Mapping[str, Any]) -> Row:
  """Returns the row of a result, the same wherever a folder of images lies."""
  dataset = result["dataset"]
  if os.path.isabs(dataset):
    dataset = os.path.basename(dataset)
    if name.count("/") > 1:  # Of `evaluation.root`, which may be called alike.
      dataset = f"folder/{dataset}"
  return Row(dataset, result["protocol"], result["metric"])


def cell(
  results: Mapping[pathlib.Path, Results], row: Row, network: str
) -> str:
  """Returns the text of a cell: mean, half the range, interval, the paper's.

  Args:
    results: by workdir, of all seeds.
    row: of the table.
    network: whose results the cell shows.

  Returns:
    A text like "0.700 ± 0.200 [0.680, 0.710]"; "-" without such results.

  Raises:
    UserError: the seeds were evaluated differently.
  """
  found = {
    run: result
    for run, of_run in results.items()
    for name, result in of_run.items()
    if row_of(name, result) == row and result["network"] == network
  }
  if not found:
    return "-"
  _check_same_evaluation(found, row)
  values = [result["value"] for result in found.values()]
  text = f"{np.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"
  if len(found) < len(results):
    text += f" ({len(found)} of {len(results)} seeds)"
  intervals = [
    result["interval"] for result in found.values() if "interval" in result
  ]
  if intervals:
    low, high = max(intervals, key=lambda ends: ends[1] - ends[0])
    text += f" [{low:.3f}, {high:.3f}]"
  first = next(iter(found.values()))
  if "paper" in first:
    text += f"; paper {first['paper']:.3f}"
  return text


def _check_same_evaluation(
  found: Mapping[pathlib.Path, Mapping[str, Any]], row: Row
) -> None:
  """Raises `UserError` unless results come from the same step and splits."""
  first, *others = found
  for run in others:
    for key in _SAME_KEYS:
      if found[run][key] != found[first][key]:
        raise errors.UserError(
          f"{run} has {row} with {key}={found[run][key]} and {first} with"
          f" {found[first][key]}; evaluate them alike to average them."
        )


def check_comparable(
  workdirs: Sequence[pathlib.Path], swept: Collection[str] = ()
) -> None:
  """Raises `UserError` if runs differ in a setting that was not swept.

  Args:
    workdirs: of the runs, at least one.
    swept: keys that may differ, besides `seed` and keys that change no parameter.
  """
  first, *others = workdirs
  expected = _settings(first)
  for other in others:
    settings = _settings(other)
    for key in saved_settings.differences(expected, settings):
      if key not in {"seed", *swept}:
        raise errors.UserError(
          f"{other} has {key}={saved_settings.shown(settings, key)} and {first}"
          f" {saved_settings.shown(expected, key)}; only runs that differ in"
          f" {', '.join(['seed', *sorted(swept)])} alone can be compared."
        )


def _settings(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the settings of a run by dotted key."""
  settings = saved_settings.read(workdir)
  if not settings:
    raise errors.UserError(
      f"{workdir / 'config.json'} is missing, so the settings of these results"
      f" are unknown; move {workdir} elsewhere."
    )
  return settings
