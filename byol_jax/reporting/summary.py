"""What a run amounts to: metrics beside baselines, cost, settings and versions.

Everything here is text by rows, which the page and the card show alike.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from byol_jax.reporting import facts as facts_lib
from byol_jax.reporting import tables
from byol_jax.reporting.facts import Facts

# A header, and rows of as many cells.
Table = tuple[list[str], list[list[str]]]

_NOTHING = "-"


def metrics(facts: Facts) -> Table:
  """Returns each metric by network, with intervals and what was expected.

  Columns in which nothing stands are left out.
  """
  expected = _expected(facts)
  columns = [*tables.COLUMNS.values(), "expected", "paper"]
  rows = []
  all_rows = tables.rows_of([facts.results])
  for row, row_name in zip(all_rows, tables.names_of(all_rows), strict=True):
    cells = {}
    for name, result in facts.results.items():
      column = tables.COLUMNS.get(result["network"])
      if column is None or tables.row_of(name, result) != row:
        continue
      cells[column] = value_text(result)
      if name in expected:
        cells["expected"] = f"{expected[name]:.3f}"
      if "paper" in result:
        cells["paper"] = f"{result['paper']:.3f}"
    rows.append([row_name, *(cells.get(name, _NOTHING) for name in columns)])
  used = [
    i
    for i in range(len(columns) + 1)
    if not i or any(row[i] != _NOTHING for row in rows)
  ]
  header = ["metric", *columns]
  return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _expected(facts: Facts) -> dict[str, float]:
  """Returns what the experiment should give, by name of the result."""
  pairs = (
    text.partition("=")
    for text in facts.settings.get("evaluation.expected", ())
  )
  return {name: float(value) for name, _, value in pairs}


def not_obtained(facts: Facts) -> list[str]:
  """Returns what the experiment expects of metrics that have no result."""
  return [
    f"{name} {value:.3f}"
    for name, value in _expected(facts).items()
    if name not in facts.results
  ]


def value_text(result: Mapping[str, Any]) -> str:
  """Returns a value with its 95% interval, if it has one."""
  value = result["value"]
  text = f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
  if "interval" in result:
    text += " [{:.3f}, {:.3f}]".format(*result["interval"])
  return text


def about_metrics(facts: Facts) -> str:
  """Returns a line on what the metrics are about; "" without results."""
  online = [r for r in facts.results.values() if r["network"] == "online"]
  if not online:
    return ""
  steps = sorted({result["step"] for result in online})
  about = dict.fromkeys(
    f"{result['examples']:,} images of {result['split']}"
    f" ({os.path.basename(result['dataset'])})"
    for result in online
  )
  text = (
    f"The encoder of step {', '.join(f'{step:,}' for step in steps)} on"
    f" {', '.join(about)}; in brackets, 95% intervals over the choice of images."
  )
  if _expected(facts):
    text += " Expected is what the experiment gives with its own settings."
  return text


def progress(facts: Facts, total_steps: int) -> str:
  """Returns how far a run has come."""
  if not facts.rows:
    return "Nothing is trained yet."
  if facts.step >= total_steps:
    return f"Finished: {total_steps:,} steps."
  return f"Step {facts.step:,} of {total_steps:,}; the run has not ended."


def settings(facts: Facts) -> list[list[str]]:
  """Returns key, value and default of each setting that is not the default."""
  return [
    [key, shown(value), shown(default)]
    for key, value, default in facts_lib.changed_settings(facts)
  ]


def shown(value: Any) -> str:
  """Returns a setting as text."""
  if isinstance(value, Sequence) and not isinstance(value, str):
    return ", ".join(map(shown, value)) or "none"
  return str(value) if value != "" else "empty"


def cost(facts: Facts) -> str:
  """Returns the device hours of the logged steps."""
  hours = facts_lib.device_hours(facts)
  if hours is None:
    return "unknown: the workdir does not tell its devices or its speed"
  last = facts.sessions[-1]
  return (
    f"{hours:.3g} device hours, on {last['devices']} {last['device']}; without"
    " compilation and evaluation"
  )


def provenance(facts: Facts) -> list[list[str]]:
  """Returns what ran: commands, code, machine and versions, latest first."""
  rows = [["cost", cost(facts)]]
  if not facts.sessions:
    rows.append(["versions", "unknown: no training has recorded them here"])
    return rows
  last = facts.sessions[-1]
  rows.append(["commit", last["commit"] or "unknown: not a git checkout"])
  for session in reversed(facts.sessions):
    rows.append([f"command at step {session['step']:,}", session["command"]])
  rows.append(
    [
      "machine",
      f"{last['host']}: {last['devices']} {last['device']},"
      f" {last['processes']} processes",
    ]
  )
  rows.append(["started", facts.sessions[0]["started"]])
  versions = (f"{name} {version}" for name, version in last["versions"].items())
  rows.append(["versions", ", ".join(versions)])
  return rows


def health_numbers(facts: Facts) -> list[list[str]]:
  """Returns the numbers behind the verdict."""
  numbers = facts.health.get("numbers")
  if not isinstance(numbers, Mapping):
    return []
  return [[str(name), _number(value)] for name, value in numbers.items()]


def _number(value: Any) -> str:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return f"{value:.4g}" if is_number and math.isfinite(value) else str(value)
