"""What a run prints at each level, by the command and from Python."""

import re

import pytest
from absl import logging

import byol_jax
from byol_jax import config, errors
from byol_jax.runtime import console, files, writers
from tests import command_line
from tests.experiment_configs import experiment_config


@pytest.fixture(autouse=True)
def everything_is_shown():
  yield
  console.configure("info")


def speak(folder):
  """One of each: a line, a note, a bar of each kind, and a log of the package."""
  console.say("A line.")
  console.say("Note: doubtful.")
  bar = writers.ProgressBar(total=10, initial=0)
  bar.write(10, {"train/loss": 1.0})
  bar.close()
  with console.images(1, "Features", is_shown=True) as images:
    images.update(1)
  path = folder / "results.json"
  path.write_text("{")
  files.set_aside(path, "it is no JSON", "{}")


@pytest.mark.parametrize(
  ("level", "has_lines", "has_notes"),
  [("info", True, True), ("warning", False, True), ("error", False, False)],
)
def test_a_level_shows_its_lines_notes_and_bars(
  level, has_lines, has_notes, tmp_path, capsys, caplog
):
  console.configure(level)
  with caplog.at_level("WARNING", logger="absl"):
    speak(tmp_path)
  out, err = capsys.readouterr()
  assert out == ("A line.\n" if has_lines else "")
  assert ("Note: doubtful.\n" in err) == has_notes
  assert ("step 10/10" in err) == has_lines
  assert bool(caplog.records) == has_notes
  if not has_notes:
    assert err == ""


@pytest.mark.parametrize("level", ["info", "warning"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_bar_on_a_terminal_follows_the_level(
  level, is_terminal, capsys, monkeypatch
):
  console.configure(level)
  monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
  with console.files(2, "Preparing") as bar:
    bar.update(2)
  steps = writers.ProgressBar(total=10, initial=0)
  steps.write(10, {})
  steps.close()
  err = capsys.readouterr().err
  assert ("Preparing" in err) == (is_terminal and level == "info")
  assert ("step 10/10" in err) == (level == "info")


def test_errors_of_the_package_are_logged_at_every_level(caplog):
  console.configure("error")
  logging.error("This is one.")
  assert [record.message for record in caplog.records] == ["This is one."]


def test_an_unknown_level_names_the_known_ones():
  settings = experiment_config("quickstart")
  settings.log.level = "debug"
  with pytest.raises(
    errors.UserError, match="must be info or warning or error"
  ):
    config.validate(settings)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_the_command_prints_what_its_level_says(level, tmp_path, digits_dir):
  arguments = (
    *command_line.pretraining(tmp_path, steps=2, checkpoint_every=0),
    "--config.evaluation.protocols=knn",
    "--config.optimizer.warmup_epochs=100",  # Longer than the run: a note.
    f"--config.log.level={level}",
  )
  done = command_line.run(*arguments, data_dir=digits_dir)
  assert done.returncode == 0, done.stderr
  for words in ("Workdir:", "images to pretrain on", "knn/top1", "Done:"):
    assert (words in done.stdout) == (level == "info"), words
  assert (done.stdout == "") == (level != "info")
  assert ("step 2/2" in done.stderr) == (level == "info")
  notes = re.findall("^Note: the warm-up of", done.stderr, re.M)
  assert len(notes) == (level != "error")
  mistaken = command_line.run(
    *arguments, "--config.train.batch_size=16", data_dir=digits_dir
  )
  assert mistaken.returncode == 1
  assert mistaken.stderr.startswith("Error: ")


@pytest.mark.slow
@pytest.mark.parametrize("level", ["info", "error"])
def test_a_program_can_keep_a_run_silent(level, tmp_path, digits_dir, capfd):
  settings = experiment_config("quickstart")
  settings.data.data_dir = digits_dir
  settings.data.image_size = 16
  settings.model.encoder.name = "TinyResNet"
  settings.train.batch_size = 32
  settings.train.steps = 2
  settings.train.compilation_cache = str(tmp_path / "file" / "cache")
  (tmp_path / "file").touch()  # So that there is something to note.
  settings.evaluation.protocols = ("knn",)
  settings.log.level = level
  run = byol_jax.open_run(settings, tmp_path / "run")
  state, _ = byol_jax.pretrain(run)
  byol_jax.evaluate(run, state)
  out, err = capfd.readouterr()
  if level == "error":
    assert (out, err) == ("", "")
  else:
    assert out.startswith("Health: ")
    assert "Note: train.compilation_cache" in err
    assert "step 2/2" in err
