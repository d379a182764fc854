"""Sweeps: their runs, how they resume, and their report."""

import importlib.util
import json
import os
import shlex
import stat
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from byol_jax import config as config_lib
from byol_jax import errors, sweeps
from byol_jax.reporting import sweep as sweep_report
from tests import command_line

FILES = sorted((command_line.ROOT / "experiments/sweeps").glob("*.py"))
LAUNCHER = command_line.ROOT / "launch/sweep.py"


def launcher():
  spec = importlib.util.spec_from_file_location("sweep_launcher", LAUNCHER)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_sweep_overrides_keys_that_are_there(path, monkeypatch):
  sweep = sweeps.load(path)
  assert (command_line.ROOT / sweep.experiment).is_file()
  assert f"--sweep=experiments/sweeps/{path.name}" in path.read_text()
  runs = sweeps.members(sweep)
  assert len({run.name for run in runs}) == len(runs)
  assert len(runs) == len(sweep.points) * len(sweep.seeds)
  for run in runs:
    argv = ["", *(sweeps.flag(*one) for one in run.overrides.items())]
    monkeypatch.setattr(sys, "argv", argv)  # config_flags reads it as well.
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict(
      "config", config_lib.default_config(), flag_values=values
    )
    values(argv)
    config_lib.validate(values.config)
    assert values.config.seed == run.overrides["seed"]
  distinct = {json.dumps(dict(p.overrides)) for p in sweep.points.values()}
  assert len(distinct) == len(sweep.points)
  assert len({point.x for point in sweep.points.values()}) == len(sweep.points)


def test_the_target_decay_is_the_papers():
  sweep = sweeps.load(FILES[0].with_name("target_decay.py"))
  assert {
    name: (point.overrides["ema.base"], point.paper[0])
    for name, point in sweep.points.items()
  } == {
    "1": (1, 18.8),
    "0.999": (0.999, 69.8),
    "0.99": (0.99, 72.5),
    "0.9": (0.9, 68.4),
    "0": (0, 0.3),
  }


def test_a_sweep_survives_its_file():
  sweep = sweeps.load(FILES[0])
  again = sweeps.from_json(sweeps.to_json(sweep))
  assert again == sweep
  assert [*again.points] == [*sweep.points]


def test_files_without_a_sweep_are_named(tmp_path):
  empty = tmp_path / "empty.py"
  empty.touch()
  for path, part in {
    empty: "get_sweep()",
    tmp_path / "none.py": "not a",
  }.items():
    with pytest.raises(errors.UserError, match=path.name) as info:
      sweeps.load(path)
    assert part in str(info.value)


SWEEP = """
from byol_jax.sweeps import Point, Sweep

def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={"low": Point(0.1, {"ema.base": 0.1}, (50.0, 2.0)),
            "high": Point(0.9, {"ema.base": 0.9})},
    seeds=(0, 1),
    title="Decay",
    axis="tau",
  )
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """A sweep whose runs record their arguments and exit as configured."""
  (tmp_path / "decay.py").write_text(SWEEP)
  program = tmp_path / "python"
  program.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
case "$*" in
  *"$(cat {tmp_path}/which)"*) exit "$(cat {tmp_path}/code)" ;;
esac
""")
  program.chmod(program.stat().st_mode | stat.S_IEXEC)
  monkeypatch.setattr(sys, "executable", str(program))

  def run(*args, failing="none", code=1):
    (tmp_path / "which").write_text(failing)
    (tmp_path / "code").write_text(str(code))
    (tmp_path / "calls").write_text("")
    found = launcher().main(
      [f"--sweep={tmp_path}/decay.py", f"--workdir={tmp_path}/runs", *args]
    )
    return found, (tmp_path / "calls").read_text().splitlines()

  return run


def test_a_failed_run_stops_no_other_and_alone_runs_again(stand_in, capsys):
  code, calls = stand_in("--config.train.steps=3", failing="high/seed_0")
  assert code == 1
  assert len(calls) == 4
  assert all("--config.train.steps=3" in call for call in calls)
  printed = capsys.readouterr()
  assert printed.err.count("Error: ") == 1
  assert "high/seed_0 ended with 1, see its log.txt" in printed.err

  code, calls = stand_in("--config.train.steps=3")
  assert code == 0
  assert len(calls) == 1
  assert "high/seed_0" in calls[0]
  assert "--config.ema.base=0.9 --config.seed=0" in calls[0]
  assert "--mode=report" in capsys.readouterr().out
  assert stand_in("--config.train.steps=3") == (0, [])
  # Another command is not finished; byol_jax.main refuses other settings.
  assert len(stand_in("--config.train.steps=4")[1]) == 4


def test_a_stopped_run_stops_the_sweep(stand_in):
  with pytest.raises(SystemExit) as info:
    stand_in(failing="high/seed_0", code=os.EX_TEMPFAIL)
  assert info.value.code == os.EX_TEMPFAIL
  code, calls = stand_in()
  assert code == 0
  assert len(calls) == 3


def test_a_dry_run_prints_commands_and_runs_none(stand_in, capsys, tmp_path):
  code, calls = stand_in("--dry-run")
  assert (code, calls) == (0, [])
  first, *commands = capsys.readouterr().out.splitlines()
  assert first == f"4 runs, 0 finished: {tmp_path}/runs"
  assert f"--workdir={tmp_path}/runs/low/seed_0" in shlex.split(commands[0])
  assert not (tmp_path / "runs").exists()


def test_unknown_flags_are_named(stand_in, capsys):
  with pytest.raises(SystemExit) as info:
    stand_in("--epochs=3")
  assert info.value.code == 2
  assert (
    "'--epochs=3' is unknown; write --config.KEY" in capsys.readouterr().err
  )


def test_a_sweep_in_a_bucket_is_refused_in_one_line(stand_in, capsys):
  code, calls = stand_in("--workdir=gs://bucket/runs")
  assert (code, calls) == (1, [])
  message = capsys.readouterr().err
  assert message.startswith(
    "Error: --workdir=gs://bucket/runs must be on a disk"
  )
  assert message.count("\n") == 1


@pytest.fixture
def finished(tmp_path):
  """A sweep's folder with results of all but one run."""
  (tmp_path / "decay.py").write_text(SWEEP)
  sweep = sweeps.load(tmp_path / "decay.py")
  (tmp_path / sweeps.FILE).write_text(sweeps.to_json(sweep))
  for member, value in zip(
    sweeps.members(sweep), (0.2, 0.8, 0.4), strict=False
  ):
    workdir = tmp_path / member.name
    workdir.mkdir(parents=True)
    config = {"train": {"epochs": 1}}
    for key, setting in member.overrides.items():
      section, _, name = key.rpartition(".")
      (config.setdefault(section, {}) if section else config)[name] = setting
    (workdir / "config.json").write_text(json.dumps(config))
    result = {
      "value": value,
      "protocol": "linear",
      "metric": "top1",
      "dataset": "digits",
      "train_split": "train",
      "split": "test",
      "examples": 10,
      "step": 9,
      "network": "online",
    }
    health = {"verdict": "collapsed" if value < 0.3 else "healthy"}
    (workdir / "results.json").write_text(
      json.dumps({"health": health, "linear/top1": result})
    )
  return tmp_path


def test_the_report_is_a_table_and_a_picture(finished):
  table = sweep_report.write(finished).read_text().splitlines()
  assert table[-4:] == [
    "| tau | digits linear top1 | health | paper, ImageNet |",
    "|---|---|---|---|",
    "| low | 0.300 ± 0.100 | collapsed, healthy | 50.0 ± 2.0 |",
    "| high | 0.800 ± 0.000 | healthy | - |",
  ]
  assert (finished / "sweep.png").stat().st_size > 10_000


def test_the_report_tells_how_well_scores_rank_the_runs(finished):
  for run, rank in (("low/seed_0", 1), ("high/seed_0", 9), ("low/seed_1", 2)):
    path = finished / run / "results.json"
    found = json.loads(path.read_text())
    linear = found["linear/top1"]
    for name, value in (("lidar", rank), ("worse", -rank), ("constant", 1)):
      found[f"geometry/{name}"] = linear | {"metric": name, "value": value}
    found["baseline"] = linear | {"network": "online, untrained"}
    path.write_text(json.dumps(found))
  text = sweep_report.write(finished).read_text()
  assert text.endswith("""
How each score ranks the runs, beside their linear/top1:

| score | runs | Spearman's rho | Kendall's tau |
|---|---|---|---|
| geometry/lidar | 3 | 1.00 | 1.00 |
| geometry/worse | 3 | -1.00 | -1.00 |
""")


def test_runs_that_differ_in_more_than_what_was_swept_are_refused(finished):
  path = finished / "high/seed_0/config.json"
  path.write_text(path.read_text().replace('"epochs": 1', '"epochs": 2'))
  with pytest.raises(errors.UserError, match=r"train.epochs=2 and .* 1"):
    sweep_report.write(finished)


def test_a_sweep_without_results_says_where_to_look(tmp_path):
  (tmp_path / sweeps.FILE).write_text(sweeps.to_json(sweeps.load(FILES[0])))
  with pytest.raises(errors.UserError, match=r"log\.txt"):
    sweep_report.write(tmp_path)
