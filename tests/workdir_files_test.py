"""A workdir belongs to the settings of its checkpoints."""

import json

import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.training import workdir_files


@pytest.fixture
def workdir(tmp_path):
  """A workdir of the default settings with one checkpoint."""
  workdir_files.write_settings(tmp_path, schema.Config())
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  return tmp_path


def changed(**values):
  keys = {key.replace("__", "."): value for key, value in values.items()}
  return convert.updated(schema.Config(), keys)


def test_settings_that_decide_parameters_are_held(workdir):
  workdir_files.check_settings(workdir, schema.Config())
  with pytest.raises(errors.UserError, match=r"ema\.base=0\.996, not 0\.9;"):
    workdir_files.check_settings(workdir, changed(ema__base=0.9))


def test_other_settings_may_change(workdir):
  free = changed(log__every_steps=3, evaluation__knn__k=7, data__threads=2)
  workdir_files.check_settings(workdir, free)


def test_a_workdir_without_checkpoint_belongs_to_nobody(tmp_path):
  workdir_files.write_settings(tmp_path, schema.Config())
  workdir_files.check_settings(tmp_path, changed(ema__base=0.9))
  assert workdir_files.settings_of(tmp_path) == {}


def with_length(tmp_path, reached, **values):
  """A workdir of a run with a checkpoint at step `reached`."""
  workdir_files.write_settings(tmp_path, changed(**values))
  (tmp_path / "checkpoints" / str(reached)).mkdir(parents=True)
  return tmp_path


# Of 8192 images, two batches of 4096.
EXAMPLES = 8192


def test_a_run_that_has_ended_can_be_made_longer(tmp_path):
  workdir = with_length(tmp_path, 10, train__steps=10)
  for longer in (changed(train__steps=11), changed(train__epochs=6)):
    workdir_files.check_settings(workdir, longer)
    assert workdir_files.check_length(workdir, longer, EXAMPLES) == 10


def test_the_same_length_in_other_words_is_the_same(tmp_path):
  workdir = with_length(tmp_path, 4, train__steps=10)
  same = changed(train__epochs=5)
  assert workdir_files.check_length(workdir, same, EXAMPLES) is None
  assert workdir_files.check_length(tmp_path / "new", same, EXAMPLES) is None


@pytest.mark.parametrize(
  ("reached", "steps", "expected"),
  [
    (
      4,
      20,
      "train.steps=10, not 20, at step 4 of 10: continue with its length",
    ),
    (4, 4, "train.steps=10, not 4, at step 4 of 10: continue with its length"),
    (
      10,
      9,
      "train.steps=10, not 9, at step 10 of 10: .* more than 10 to train",
    ),
  ],
)
def test_any_other_length_is_refused_with_what_is_possible(
  tmp_path, reached, steps, expected
):
  workdir = with_length(tmp_path, reached, train__steps=10)
  with pytest.raises(errors.UserError, match=expected) as info:
    workdir_files.check_length(workdir, changed(train__steps=steps), EXAMPLES)
  assert "or choose another --workdir" in str(info.value)


def test_the_history_is_kept_beside_the_settings(workdir):
  assert workdir_files.read_history(workdir) == {}
  history = {"extended_at": [3]}
  workdir_files.write_settings(workdir, schema.Config(), history)
  assert workdir_files.read_history(workdir) == history
  workdir_files.check_settings(workdir, schema.Config())
  # Runs with another history are not averaged.
  assert workdir_files.read_settings(workdir)["history.extended_at"] == [3]


def test_a_key_that_is_newer_than_the_workdir_had_its_default_there(workdir):
  path = workdir / "config.json"
  settings = json.loads(path.read_text())
  del settings["ema"]["base"]
  path.write_text(json.dumps(settings))
  workdir_files.check_settings(workdir, schema.Config())
  with pytest.raises(errors.UserError, match=r"ema\.base=0\.996, not 0\.9;"):
    workdir_files.check_settings(workdir, changed(ema__base=0.9))


def test_too_little_space_is_one_line_with_both_numbers(workdir):
  state = {"w": _Large()}
  with pytest.raises(errors.UserError, match=r"checkpoint\.keep=3 needs"):
    workdir_files.check_space(workdir, state, keep=3)


class _Large:
  """Stands for an array of an exabyte."""

  nbytes = 10**18
