"""Diagnoses while training: when they are made, and what a run makes of them."""

import json
import types

import numpy as np
import pytest

from byol_jax import program
from byol_jax.config import convert, schema
from byol_jax.evaluation import monitor, results
from byol_jax.learning import diagnostics, verdict
from byol_jax.runtime import writers
from byol_jax.training import health, loop, runs
from tests.eval_cases import RESULT, prepare, small_config

SPREAD = {
  "encoder_norm": 10.0,
  "encoder_step": 0.01,
  "projection_std": 0.8,
  "projection_rank": 20.0,
  "prediction_cosine": 0.8,
}


def row(step, **changes):
  numbers = SPREAD | changes
  return {"step": step} | {f"health/{k}": v for k, v in numbers.items()}


@pytest.fixture
def doctor(monkeypatch):
  """Makes a doctor of 1000 steps whose diagnosis takes 3 steps' time."""
  now = [0.0]

  def diagnose(numbers, outputs):
    now[0] += 3.0
    return {"projection_std": np.float32(1)}

  def make(**options):
    options = {f"log.{name}": value for name, value in options.items()}
    run = types.SimpleNamespace(
      config=convert.updated(schema.Config(), options),
      plan=types.SimpleNamespace(total_steps=1000),
      num_classes=0,
    )
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
      health.devices, "pmap_update", lambda *unused, **unused_too: diagnose
    )
    return health.Doctor(run, 1)

  def diagnosed(**options):
    made = make(**options)
    seen = diagnostics.Evidence({}, (), ())
    found = [0] if made.start(seen) else []
    for step in range(1, 1001):
      now[0] += 1.0
      if made.after(step, seen):
        found.append(step)
    return found

  return diagnosed


def test_diagnoses_take_two_percent_of_the_time_and_end_with_the_run(doctor):
  assert doctor(every_steps=20) == [0, *range(160, 1000, 160), 1000]


def test_a_chosen_interval_is_rounded_up_to_that_of_the_log(doctor):
  assert doctor(every_steps=20, diagnose_every=390) == [0, 400, 800, 1000]


def run_with(tmp_path, *rows):
  path = tmp_path / "metrics.jsonl"
  path.write_text("".join(json.dumps(x) + "\n" for x in rows))
  return types.SimpleNamespace(workdir=tmp_path)


def test_the_latest_diagnosis_is_judged_beside_the_first(tmp_path):
  plain = {"step": 30, "train/loss": 1.0}
  run = run_with(tmp_path, row(0), row(20, projection_rank=2.0), plain)
  found = health.of_run(run)
  assert found.verdict == verdict.PARTIAL_COLLAPSE
  assert "0.1 times that before training" in found.because
  assert found.numbers["projection_rank"] == 2
  assert found.start["projection_rank"] == 20


def test_the_median_of_the_last_tenth_of_the_steps_is_judged(tmp_path):
  """A run that wavers is not judged by the step at which it happened to end."""
  stds = {
    10: 0.7,
    800: 0.02,
    900: 0.03,
    920: 0.04,
    960: 0.1,
    980: 0.1,
    1000: 0.8,
  }
  rows = [row(step, projection_std=std) for step, std in stds.items()]
  found = health.of_run(run_with(tmp_path, row(0), *rows))
  assert found.verdict == verdict.COLLAPSED
  assert found.numbers["projection_std"] == 0.1


def test_a_collapse_at_the_very_end_is_seen_among_many_diagnoses(tmp_path):
  rows = [
    row(step, projection_std=0.8 if step < 998 else 0.01)
    for step in range(900, 1001)
  ]
  found = health.of_run(run_with(tmp_path, row(0), *rows))
  assert found.verdict == verdict.COLLAPSED


def test_a_run_of_an_earlier_version_is_judged_by_what_it_has(tmp_path):
  assert (
    health.of_run(run_with(tmp_path, {"step": 5, "train/loss": 1.0})) is None
  )
  found = health.of_run(run_with(tmp_path, row(20, projection_rank=2.0)))
  assert found.verdict == verdict.HEALTHY
  assert found.start is None


def test_a_diagnosis_of_null_is_of_a_run_that_diverges(tmp_path):
  found = health.of_run(run_with(tmp_path, row(20, feature_rank=None)))
  assert found.verdict == verdict.DIVERGING
  assert "feature_rank is not finite" in verdict.describe(found)
  assert json.loads(json.dumps(verdict.to_json(found), allow_nan=False))


def test_each_kind_of_ill_health_is_noted_once(tmp_path, capsys):
  note = health.Note(run_with(tmp_path))
  for step, std in ((0, 0.8), (10, 0.7), (20, 0.3), (30, 0.3), (40, 0.01)):
    found = row(step, projection_std=std)
    note.write(found.pop("step"), {"train/loss": 1.0, **found})
  note.write(50, {"train/loss": 1.0})
  partial, collapsed = capsys.readouterr().err.splitlines()
  assert partial.startswith(
    "Note: at step 20, partial collapse: projection_std"
  )
  assert "is 0.3 (0.8 before training)" in partial
  assert collapsed.startswith("Note: at step 40, collapsed: projection_std")
  assert "raise ema.base" in collapsed


def test_health_stands_beside_results_and_is_none(tmp_path):
  found = verdict.to_json(verdict.judge(SPREAD))
  results.add_health(tmp_path, found)
  assert results.add(tmp_path, {"knn/top1": RESULT}) == {"knn/top1": RESULT}
  assert results.read(tmp_path) == {"knn/top1": RESULT}
  entries = json.loads((tmp_path / "results.json").read_text())
  assert entries["health"]["verdict"] == "healthy"
  assert entries["health"]["numbers"] == SPREAD
  assert {name: x["value"] for name, x in entries.items()} == {
    "health": 1,
    "knn/top1": 0.5,
  }


@pytest.mark.slow
def test_a_run_is_diagnosed_and_evaluated_while_it_trains(tmp_path, capsys):
  cfg = small_config(tmp_path)
  cfg.train.steps = 14
  cfg.log.every_steps = 2
  cfg.log.diagnose = True
  cfg.log.diagnose_every = 6
  cfg.evaluation.every_epochs = 0.6  # Four steps.
  cfg.checkpoint.keep = 1
  cfg.checkpoint.keep_best = True
  run = prepare(tmp_path, cfg)
  _, was_finished = loop.pretrain(run, monitor=monitor.Monitor(run))
  assert not was_finished
  rows = writers.read_jsonl(run.workdir / "metrics.jsonl")
  assert [x["step"] for x in rows] == [0, 2, 4, 6, 8, 10, 12, 14]
  steps = {
    name: [x["step"] for x in rows if name in x]
    for name in ("health/encoder_norm", "held_out/knn", "train/loss")
  }
  assert steps["health/encoder_norm"] == [0, 6, 12, 14]
  assert steps["held_out/knn"] == [4, 8, 12]
  assert steps["train/loss"] == [2, 4, 6, 8, 10, 12, 14]

  values = {x["step"]: x["held_out/knn"] for x in rows if "held_out/knn" in x}
  best = max(values, key=lambda step: (values[step], step))
  saved = {path.name for path in (run.workdir / "checkpoints").iterdir()}
  assert saved == {str(best), "14"}
  lines = writers.read_jsonl(run.workdir / "evaluations.jsonl")
  assert {x["step"]: x["held_out/knn"] for x in lines} == values
  assert "compiling" in capsys.readouterr().err

  program.show_health(runs.prepare(cfg, run.workdir), print)
  entries = json.loads((run.workdir / "results.json").read_text())
  assert entries["health"]["verdict"] in capsys.readouterr().out
  assert entries["health"]["start"]["projection_std"] > 0
