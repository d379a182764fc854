"""Results of several runs that differ in their seed, as one table."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax import errors, evaluation, train

_FILE = "results.md"

# What a subject's results are called, and the table's column.
_COLUMNS = {
  "": "BYOL",
  "baseline/random_": "untrained",
  "baseline/pixels_": "pixels",
}


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
  results = [evaluation.read_results(run) for run in runs]
  seeds = [_settings(run)["seed"] for run in runs]
  lines = [
    f"Mean of {len(runs)} seeds ({', '.join(map(str, seeds))}) ± half their range;"
    " in brackets, the widest 95% interval of a seed over the test examples.",
    "",
    f"| | {' | '.join(_COLUMNS.values())} |",
    "|---|" + "---|" * len(_COLUMNS),
  ]
  for name in _rows(results):
    cells = [_cell(results, _full(prefix, name)) for prefix in _COLUMNS]
    lines.append(f"| {name} | {' | '.join(cells)} |")
  path = folder / _FILE
  try:
    path.write_text("\n".join(lines) + "\n")
  except OSError as error:
    raise errors.UserError(
      f"Cannot write {path}: {error.strerror}; free space there and run again."
    ) from error
  return path


def _settings(run: pathlib.Path) -> dict[str, Any]:
  return train.flat(json.loads((run / "config.json").read_text()))


def _check_alike(runs: Sequence[pathlib.Path]) -> None:
  """Raises `UserError` for the first setting but the seed that runs differ in."""
  first, *others = runs
  expected = _settings(first)
  for other in others:
    settings = _settings(other)
    for key in sorted(expected.keys() | settings.keys()):
      if key != "seed" and settings.get(key) != expected.get(key):
        raise errors.UserError(
          f"{other} has {key}={settings.get(key)} and {first}"
          f" {expected.get(key)}; only runs that differ in seed alone can be"
          " averaged."
        )


def _full(prefix: str, name: str) -> str:
  return prefix + name.replace("/", "_", 1) if prefix else name


def _rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
  """What was measured of the trained encoder, in the order it was."""
  names = dict.fromkeys(name for result in results for name in result)
  return [name for name in names if not name.startswith("baseline/")]


def _cell(results: Sequence[Mapping[str, Any]], name: str) -> str:
  found = [result[name] for result in results if name in result]
  if not found:
    return "-"
  values = [one["value"] for one in found]
  text = f"{np.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"
  if len(found) < len(results):
    text += f" ({len(found)} seeds)"
  intervals = [one["interval"] for one in found if "interval" in one]
  if intervals:
    low, high = max(intervals, key=lambda ends: ends[1] - ends[0])
    text += f" [{low:.3f}, {high:.3f}]"
  return text
