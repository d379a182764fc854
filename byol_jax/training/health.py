"""Diagnoses a run at intervals while it trains, and says what it means."""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from byol_jax.learning import diagnostics, verdict
from byol_jax.learning.diagnostics import Evidence
from byol_jax.learning.verdict import Verdict
from byol_jax.runtime import console, devices, processes, writers
from byol_jax.training import workdir_files
from byol_jax.training.runs import Run

_PREFIX = "health/"  # Of the names of diagnostics in `metrics.jsonl`.

# The fraction of the time of training that diagnoses may take. Our choice.
_SHARE = 0.02
# The steps between which the time of a step is measured, counted from the first
# one, which compiles. Our choice: enough to average over.
_TIMED = (3, 13)
# The verdict on a run is about its diagnoses in this last fraction of the steps, and at
# most so many. Our choice: a run changes little in its last tenth, and a collapse at its
# very end shows in three diagnoses of five.
_LATEST, _MOST = 0.1, 5

# What differs between the devices of `devices.pmap_update`: the outputs.
EVIDENCE_AXES = Evidence(None, 0, 0)  # type: ignore[arg-type]


class Doctor:
  """Diagnoses the states of a run at intervals and at its end.

  All processes of a run make the same calls.

  Args:
    run: the run.
    first_step: the first step of this training.
  """

  def __init__(self, run: Run, first_step: int):
    log = run.config.log
    self._round_to = log.every_steps
    self._last_step = run.plan.total_steps
    self._timed = [first_step + offset for offset in _TIMED]
    self._timed_at: dict[int, float] = {}
    self._cost = 0.0  # Seconds of a diagnosis.
    self._every = self._rounded(log.diagnose_every)  # 0: not known yet.
    self._diagnose = devices.pmap_update(diagnostics.diagnose, keeps_state=True)

  def start(self, evidence: Evidence) -> dict[str, Any]:
    """Compiles, and returns the diagnostics of the first update by name."""
    jax.block_until_ready(self._named(evidence))
    begun_at = time.monotonic()
    found = jax.block_until_ready(self._named(evidence))
    self._cost = time.monotonic() - begun_at
    return found

  def after(self, step: int, evidence: Evidence) -> dict[str, Any]:
    """Diagnoses a step, if it is due, without waiting for it.

    Returns:
      Diagnostics by name; {} if none are due.
    """
    if not self._every and step in self._timed:
      self._timed_at[step] = time.monotonic()
      if step == self._timed[-1]:
        self._every = processes.broadcast_from_primary(self._affordable)
    is_due = self._every and step % self._every == 0
    if is_due or step == self._last_step:
      return self._named(evidence)
    return {}

  def _named(self, evidence: Evidence) -> dict[str, Any]:
    found = self._diagnose(evidence.numbers, (evidence.online, evidence.target))
    return {f"{_PREFIX}{name}": value for name, value in found.items()}

  def _affordable(self) -> int:
    """Returns the steps between diagnoses that take `_SHARE` of the time."""
    begin, end = self._timed
    elapsed = self._timed_at[end] - self._timed_at[begin]
    step_time = max(elapsed / (end - begin), 1e-6)
    return self._rounded(math.ceil(self._cost / step_time / _SHARE))

  def _rounded(self, steps: int) -> int:
    """Rounds up to whole intervals of the log."""
    return -(-steps // self._round_to) * self._round_to


class Note:
  """A writer that prints one note on stderr for each kind of ill health.

  Args:
    run: the run.
  """

  def __init__(self, run: Run):
    self._run = run
    self._start: Mapping[str, float] | None = _start(_read_rows(run))
    self._told = {*verdict.FINE}

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Judges the diagnostics among the scalars."""
    if not (numbers := _diagnostics(scalars)):
      return
    if step == 0:
      self._start = numbers
      return
    found = verdict.judge(numbers, self._start)
    if found.verdict not in self._told:
      self._told.add(found.verdict)
      console.say(f"Note: at step {step}, {verdict.describe(found)}")

  def flush(self) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


def of_run(run: Run) -> Verdict | None:
  """Returns the verdict on a run so far; None before its first diagnosis.

  It judges the median of each number over the latest diagnoses, as the numbers of a run
  that fails may waver from one step to the next.
  """
  rows = _read_rows(run)
  found = [
    (row["step"], numbers)
    for row in rows
    if row["step"] and (numbers := _diagnostics(row))
  ]
  if not found:
    return None
  last_step, last = found[-1]
  latest = [
    numbers
    for step, numbers in found[-_MOST:]
    if step > (1 - _LATEST) * last_step
  ]
  medians = {
    name: float(np.median([numbers.get(name, value) for numbers in latest]))
    for name, value in last.items()
  }
  return verdict.judge(medians, _start(rows))


def _read_rows(run: Run) -> list[dict[str, Any]]:
  return writers.read_jsonl(run.workdir / workdir_files.METRICS_FILE)


def _start(rows: list[dict[str, Any]]) -> dict[str, float] | None:
  """Returns the diagnostics before the first step; None if there are none."""
  found = (_diagnostics(row) for row in rows if row["step"] == 0)
  return next(filter(None, found), None)


def _diagnostics(row: Mapping[str, Any]) -> dict[str, float]:
  """Returns the diagnostics in a row by name; null, which JSON has, is NaN."""
  return {
    name.removeprefix(_PREFIX): math.nan if value is None else float(value)
    for name, value in row.items()
    if name.startswith(_PREFIX)
  }
