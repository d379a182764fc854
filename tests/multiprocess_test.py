"""Several processes train as one, stop together and resume."""

import json
import os
import signal
import time

import numpy as np
import pytest

from byol_jax.runtime import writers
from tests import command_line

STEPS = 12


def assert_same_end(workdir, expected, steps=STEPS):
  leaves, wanted = (
    command_line.saved_leaves(folder, steps) for folder in (workdir, expected)
  )
  assert leaves.keys() == wanted.keys()
  for name, leaf in wanted.items():
    np.testing.assert_allclose(
      leaves[name], leaf, rtol=1e-5, atol=1e-5, err_msg=name
    )


def assert_each_step_once(workdir, steps=STEPS):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in lines] == [*range(1, steps + 1)]


def tiny(workdir):
  return [
    *command_line.pretraining(workdir, steps=STEPS, checkpoint_every=4),
    "--config.train.check_replicas_every=3",
    "--config.data.parts=2",
  ]


# No batch size divides the 600 training and 97 test examples.
EVALUATION = [
  "--config.evaluation.protocols=knn,linear,semi_supervised",
  "--config.evaluation.baselines=False",
  "--config.evaluation.train_split=train[:600]",
  "--config.evaluation.test_split=test[:97]",
  "--config.evaluation.linear.crops=random",
  "--config.evaluation.semi_supervised.labels=(0.1,)",
  "--config.evaluation.semi_supervised.learning_rates=(0.1,)",
  "--config.evaluation.semi_supervised.epochs=(2.0,)",
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits_dir):
  """The workdir of one process with two devices."""
  workdir = tmp_path_factory.mktemp("uninterrupted")
  done = command_line.run(
    *tiny(workdir), *EVALUATION, data_dir=digits_dir, devices=2
  )
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.mark.slow
def test_two_processes_train_as_one_with_two_devices(tmp_path, digits_dir):
  def args(name):
    return [*tiny(tmp_path / name), "--config.log.diagnose=True"]

  first, second = map(
    command_line.ended,
    command_line.start_pair(*args("two"), data_dir=digits_dir),
  )
  assert first.returncode == 0, first.stderr
  assert second.returncode == 0, second.stderr
  assert "2 cpu devices in 2 processes" in first.stdout
  said = [x for x in second.stdout.splitlines() if not x.startswith("[Gloo]")]
  assert said == []  # The primary prints for both.
  one = command_line.run(*args("one"), data_dir=digits_dir, devices=2)
  assert one.returncode == 0, one.stderr
  assert_same_end(tmp_path / "two", tmp_path / "one")
  two, one = (
    writers.read_jsonl(tmp_path / name / "metrics.jsonl")
    for name in ("two", "one")
  )
  assert [row["step"] for row in two] == [*range(STEPS + 1)]
  for step in (0, STEPS):
    names = [name for name in two[step] if name.startswith("health/")]
    assert "health/feature_rank" in names
    for name in names:
      assert two[step][name] == pytest.approx(one[step][name], rel=0.01), name


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_one_process_resumes(
  uninterrupted, tmp_path, digits_dir
):
  def survivor_of(killed, lines):
    pair = command_line.start_pair(*tiny(tmp_path), data_dir=digits_dir)
    command_line.wait_for(pair[0], tmp_path / "metrics.jsonl", lines)
    pair[killed].kill()
    killed_at = time.monotonic()
    survivor = command_line.ended(pair[1 - killed])
    assert time.monotonic() - killed_at < 60
    pair[killed].communicate()
    return survivor

  first = survivor_of(killed=1, lines=5)
  assert first.returncode == os.EX_TEMPFAIL, first.stderr
  assert "Another process was lost" in first.stderr
  assert "Traceback" not in first.stderr
  # JAX may abort a process that lost the primary before Python notices.
  second = survivor_of(killed=0, lines=9)
  assert second.returncode in (os.EX_TEMPFAIL, -signal.SIGABRT), second.stderr
  assert "run the same command" in second.stderr or "fatal" in second.stderr

  # On one device.
  done = command_line.run(*tiny(tmp_path), data_dir=digits_dir)
  assert done.returncode == 0, done.stderr
  assert_same_end(tmp_path, uninterrupted)
  assert_each_step_once(tmp_path)


@pytest.mark.slow
def test_sigterm_to_one_stops_both_which_resume_and_evaluate_as_one(
  uninterrupted, tmp_path, digits_dir
):
  """One device starts; two processes resume, are stopped, and resume."""
  alone = command_line.run_and_signal(
    *tiny(tmp_path),
    signum=signal.SIGTERM,
    when=tmp_path / "metrics.jsonl",
    lines=3,
    data_dir=digits_dir,
  )
  assert alone.returncode == os.EX_TEMPFAIL, alone.stderr

  pair = command_line.start_pair(*tiny(tmp_path), data_dir=digits_dir)
  command_line.wait_for(pair[0], tmp_path / "metrics.jsonl", lines=7)
  pair[1].send_signal(signal.SIGTERM)
  first, second = map(command_line.ended, pair)
  assert first.returncode == os.EX_TEMPFAIL, first.stderr
  assert second.returncode == os.EX_TEMPFAIL, second.stderr
  assert "run the same command again" in first.stdout

  pair = command_line.start_pair(
    *tiny(tmp_path), *EVALUATION, data_dir=digits_dir
  )
  for done in map(command_line.ended, pair):
    assert done.returncode == 0, done.stderr
  assert_same_end(tmp_path, uninterrupted)
  assert_each_step_once(tmp_path)
  results, expected = (
    json.loads((workdir / "results.json").read_text())
    for workdir in (tmp_path, uninterrupted)
  )
  assert len(results) == 3
  assert results.keys() == expected.keys()
  for name, result in results.items():
    assert result["examples"] == 97
    # One or two examples may lie at a decision boundary.
    assert abs(result["value"] - expected[name]["value"]) < 2.5 / 97, name


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_other_with_where_it_waits(
  tmp_path, digits_dir
):
  first, second = command_line.start_pair(
    *tiny(tmp_path), "--config.train.hang_seconds=10", data_dir=digits_dir
  )
  command_line.wait_for(first, tmp_path / "metrics.jsonl", lines=4)
  second.send_signal(signal.SIGSTOP)
  stopped_at = time.monotonic()
  survivor = command_line.ended(first)
  second.kill()
  second.communicate()
  assert time.monotonic() - stopped_at < 60
  assert survivor.returncode == os.EX_TEMPFAIL, survivor.stderr
  assert "no step for 10" in survivor.stderr
  assert "loop.py" in survivor.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
  ("args", "parts"),
  [
    (("--num_processes=2",), ("--process_id", "all three")),
    (
      ("--coordinator=127.0.0.1:1", "--num_processes=2", "--process_id=2"),
      ("--process_id=2", "from 0 to 1"),
    ),
  ],
)
def test_incomplete_flags_are_one_line(args, parts, tmp_path):
  done = command_line.run(*command_line.TINY, *args, f"--workdir={tmp_path}")
  assert done.returncode == 1
  assert done.stderr.count("\n") == 1
  for part in parts:
    assert part in done.stderr
