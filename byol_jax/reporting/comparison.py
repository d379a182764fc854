"""Several runs side by side: their curves, metrics and settings."""

from collections.abc import Sequence

from byol_jax.reporting import charts, markup, summary, tables
from byol_jax.reporting.facts import Facts


def draw(runs: Sequence[Facts]) -> str:
  """Returns the curves of runs over each other, and tables with a column for each.

  Args:
    runs: with different names; parts that a run lacks are left out.
  """
  names = [run.name for run in runs]
  rows = tables.rows_of((run.results for run in runs), ["online"])
  metrics = [
    [name, *(_cell(run, row) for run in runs)]
    for name, row in zip(tables.names_of(rows), rows, strict=True)
  ]
  changed = {
    key: None
    for run in runs
    for key in run.settings
    if len({str(other.settings.get(key)) for other in runs}) > 1
  }
  settings = [
    [key, *(summary.shown(run.settings.get(key, "-")) for run in runs)]
    for key in changed
  ]
  parts = [
    markup.table(("metric", *names), metrics, "numbers")
    if metrics
    else markup.note("None of the runs has results yet."),
    charts.compare(runs),
    "<h3>Settings that differ</h3>",
    markup.table(("setting", *names), settings)
    if settings
    else markup.note("None."),
  ]
  empty = [run.name for run in runs if not run.rows and not run.results]
  if empty:
    parts.append(
      markup.note(f"Neither metrics nor results yet: {', '.join(empty)}.")
    )
  return "".join(parts)


def _cell(run: Facts, row: tables.Row) -> str:
  for name, result in run.results.items():
    if result["network"] == "online" and tables.row_of(name, result) == row:
      return summary.value_text(result)
  return "-"
