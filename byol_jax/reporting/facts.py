"""What the files of a workdir say about its run, for pages and cards."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax.config import convert, schema
from byol_jax.evaluation import results as results_lib
from byol_jax.runtime import writers
from byol_jax.training import saved_settings, sessions, workdir_files

# A row of `metrics.jsonl` or `evaluations.jsonl`.
Row = Mapping[str, float | None]


class Facts(NamedTuple):
  """A run as its workdir shows it, finished or not; anything may be empty.

  Attributes:
    name: what a page calls the run.
    rows: of `metrics.jsonl`.
    evaluations: the rows of `evaluations.jsonl`.
    results: the contents of `results.json`.
    health: the verdict on the run in `results.json`: `verdict`, `because`, `try`
      and `numbers`, any of which may be missing.
    settings: of `config.json` by dotted key.
    sessions: the starts of the training.
  """

  name: str
  rows: list[dict[str, float | None]]
  evaluations: list[dict[str, float | None]]
  results: results_lib.Results
  health: Mapping[str, Any]
  settings: Mapping[str, Any]
  sessions: list[dict[str, Any]]

  @property
  def step(self) -> int:
    """The last step that was logged; 0 before."""
    return max((int(row["step"] or 0) for row in self.rows), default=0)


def read(workdir: pathlib.Path, name: str) -> Facts:
  """Returns what a workdir shows; damaged files are set aside, as elsewhere.

  Args:
    workdir: may be empty or missing.
    name: of the run on a page.

  Raises:
    UserError: a file cannot be read, or `config.json` is damaged.
  """
  found = results_lib.read(workdir)
  return Facts(
    name=name,
    rows=writers.read_jsonl(workdir / workdir_files.METRICS_FILE),
    evaluations=writers.read_jsonl(workdir / workdir_files.EVALUATIONS_FILE),
    results={key: entry for key, entry in found.items() if "value" in entry},
    health=results_lib.read_health(workdir),
    settings=saved_settings.read(workdir),
    sessions=sessions.read(workdir),
  )


def changed_settings(facts: Facts) -> list[tuple[str, Any, Any]]:
  """Returns key, value and default of each setting that is not the default."""
  defaults = convert.flatten(convert.to_json(schema.Config()))
  return [
    (key, value, defaults[key])
    for key, value in facts.settings.items()
    if key in defaults and value != defaults[key]
  ]


def device_hours(facts: Facts) -> float | None:
  """Returns the hours of all devices in the logged steps, None if unknown.

  Compilation and evaluations are left out, as are steps that were repeated after a
  kill.
  """
  batch_size = facts.settings.get("train.batch_size")
  if not (batch_size and facts.sessions and facts.rows):
    return None
  seconds, before = 0.0, 0
  for row in facts.rows:
    step, speed = int(row["step"] or 0), row.get("train/images_per_second")
    started = [s["devices"] for s in facts.sessions if s["step"] < step]
    if speed and started:
      seconds += (step - before) * batch_size / speed * started[-1]
    before = step
  return seconds / 3600
