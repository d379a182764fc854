"""A workdir belongs to the settings of its checkpoints."""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.training import saved_settings, workdir_files


@pytest.fixture
def workdir(tmp_path):
  """A workdir of the default settings with one checkpoint."""
  saved_settings.write(tmp_path, schema.Config(), "")
  return with_checkpoint(tmp_path)


def with_checkpoint(workdir):
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  return workdir


def check(workdir, config):
  saved_settings.check(workdir, config, "")


def changed(**values):
  keys = {key.replace("__", "."): value for key, value in values.items()}
  return convert.updated(schema.Config(), keys)


def test_settings_that_decide_parameters_are_held(workdir):
  check(workdir, schema.Config())
  with pytest.raises(errors.UserError, match=r"ema\.base=0\.996, not 0\.9;"):
    check(workdir, changed(ema__base=0.9))


def test_other_settings_may_change(workdir):
  free = changed(log__every_steps=3, evaluation__knn__k=7, data__threads=2)
  check(workdir, free)


def test_a_workdir_without_checkpoint_belongs_to_nobody(tmp_path):
  saved_settings.write(tmp_path, schema.Config(), "")
  check(tmp_path, changed(ema__base=0.9))
  assert saved_settings.of_run(tmp_path) == {}


def with_length(tmp_path, reached, **values):
  """A workdir of a run with a checkpoint at step `reached`."""
  saved_settings.write(tmp_path, changed(**values), "")
  (tmp_path / "checkpoints" / str(reached)).mkdir(parents=True)
  return tmp_path


# Of 8192 images, two batches of 4096.
EXAMPLES = 8192


def test_a_run_that_has_ended_can_be_made_longer(tmp_path):
  workdir = with_length(tmp_path, 10, train__steps=10)
  for longer in (changed(train__steps=11), changed(train__epochs=6)):
    saved_settings.check(workdir, longer, "")
    assert saved_settings.check_length(workdir, longer, EXAMPLES) == 10


def test_an_extension_that_saved_nothing_can_be_given_up(tmp_path):
  workdir = with_length(tmp_path, 10, train__steps=20)
  steps = lambda n: saved_settings.check_length(  # noqa: E731
    workdir, changed(train__steps=n), EXAMPLES
  )
  with pytest.raises(errors.UserError, match="step 10 of 20"):
    steps(10)
  history = {"extended_at": [4, 10]}
  saved_settings.write(workdir, changed(train__steps=20), "", history)
  assert steps(10) is None  # As if it had never been asked for.
  assert steps(15) == 10
  assert steps(20) is None
  assert steps(30) == 10
  with pytest.raises(
    errors.UserError, match=r"^Set --config\.train\.steps=10 or"
  ):
    steps(9)


def test_the_same_length_in_other_words_is_the_same(tmp_path):
  workdir = with_length(tmp_path, 4, train__steps=10)
  same = changed(train__epochs=5)
  assert saved_settings.check_length(workdir, same, EXAMPLES) is None
  assert saved_settings.check_length(tmp_path / "new", same, EXAMPLES) is None


@pytest.mark.parametrize(
  ("reached", "steps", "expected"),
  [
    (
      4,
      20,
      "=10 or choose .* step 4 of 10, not of 20 .*only a run that has ended",
    ),
    (
      4,
      4,
      "=10 or choose .* step 4 of 10, not of 4 .*only a run that has ended",
    ),
    (10, 9, "=10 or more or choose .* step 10 of 10, not of 9 .*never becomes"),
  ],
)
def test_any_other_length_is_refused_with_what_is_possible(
  tmp_path, reached, steps, expected
):
  workdir = with_length(tmp_path, reached, train__steps=10)
  with pytest.raises(errors.UserError, match=expected) as info:
    saved_settings.check_length(workdir, changed(train__steps=steps), EXAMPLES)
  assert str(info.value).startswith("Set --config.train.steps=10")
  assert "or choose another --workdir" in str(info.value)


def test_the_history_is_kept_beside_the_settings(workdir):
  assert saved_settings.read_history(workdir) == {}
  history = {"extended_at": [3]}
  saved_settings.write(workdir, schema.Config(), "", history)
  assert saved_settings.read_history(workdir) == history
  saved_settings.check(workdir, schema.Config(), "")
  # Runs with another history are not averaged.
  assert saved_settings.read(workdir)["history.extended_at"] == [3]


def test_a_key_that_is_newer_than_the_workdir_had_its_default_there(workdir):
  path = workdir / "config.json"
  settings = json.loads(path.read_text())
  del settings["ema"]["base"]
  path.write_text(json.dumps(settings))
  check(workdir, schema.Config())
  with pytest.raises(errors.UserError, match=r"ema\.base=0\.996, not 0\.9;"):
    check(workdir, changed(ema__base=0.9))


def test_a_folder_may_move_as_long_as_its_images_are_the_same(tmp_path):
  one, two = (changed(data__root=root) for root in ("/job1/x", "/job2/x"))
  saved_settings.write(tmp_path, one, "abc")
  with_checkpoint(tmp_path)
  saved_settings.check(tmp_path, two, "abc")
  saved_settings.check_images(tmp_path, two, "abc")
  # Evaluation and export go on, training does not.
  for config in (one, two):
    saved_settings.check(tmp_path, config, "def")
    assert saved_settings.has_other_images(tmp_path, "def")
    root = f"other images than data.root={config.data.root}"
    with pytest.raises(errors.UserError, match=root):
      saved_settings.check_images(tmp_path, config, "def")


def test_a_workdir_that_does_not_know_its_images_keeps_its_path(tmp_path):
  config = changed(data__root="/x")
  saved_settings.write(tmp_path, config, "")
  with_checkpoint(tmp_path)
  saved_settings.check(tmp_path, config, "abc")
  saved_settings.check_images(tmp_path, config, "abc")
  with pytest.raises(errors.UserError, match=r"data\.root='/x', not '/y';"):
    saved_settings.check(tmp_path, changed(data__root="/y"), "abc")


def test_class_names_of_several_data_sets_are_kept(tmp_path):
  path = tmp_path / "classes.json"
  workdir_files.add_class_names(tmp_path, "unlabelled", [])
  assert not path.exists()
  workdir_files.add_class_names(tmp_path, "/pets", ["cat", "dög"])
  workdir_files.add_class_names(tmp_path, "cars", ["bus"])
  expected = {"/pets": ["cat", "dög"], "cars": ["bus"]}
  assert json.loads(path.read_text()) == expected
  path.write_text('{"/pets": [')
  workdir_files.add_class_names(tmp_path, "cars", ["bus"])
  assert json.loads(path.read_text()) == {"cars": ["bus"]}


@dataclasses.dataclass
class _Leaf:
  """Stands for an array of any size."""

  nbytes: int


class _State(NamedTuple):
  step: int
  params: Any


def _needed(workdir, step=0, size=10**18, **settings) -> str:
  """Returns the error for leaves of an exabyte, in a run of 100 steps."""
  settings = {"every_seconds": 0, **settings}
  state = _State(np.int32(step), _Leaf(size))
  with pytest.raises(errors.UserError) as info:
    workdir_files.check_space(
      workdir, state, schema.CheckpointConfig(**settings), total_steps=100
    )
  message = str(info.value)
  assert "\n" not in message
  return message


@pytest.mark.parametrize(
  ("count", "settings"),
  [
    (1, {}),  # The last step.
    (3, {"every_seconds": 300}),  # Beside one that the workdir has.
    (11, {"every_steps": 10, "keep": 1_000_000}),
    (6, {"every_steps": 10, "keep": 1_000_000, "step": 50}),
    (3, {"every_steps": 10, "keep": 3}),
    (6, {"keep_every": 20}),
    (8, {"keep_every": 20, "every_steps": 10, "keep": 3}),
    (100, {"every_seconds": 1, "keep": 1_000_000}),
    (25, {"every_seconds": 3600, "keep": 1_000_000}),
  ],
)
def test_space_is_judged_by_the_checkpoints_still_to_come(
  workdir, count, settings
):
  message = _needed(workdir, **settings)
  assert f"needs {count * 1e9:.1f} GB for {count} more checkpoints" in message
  assert f"checkpoint.keep={settings.get('keep', 3)}" in message


def test_all_checkpoints_may_be_kept_where_there_is_room(workdir):
  workdir_files.check_space(
    workdir,
    _State(np.int32(0), _Leaf(10)),
    schema.CheckpointConfig(every_steps=1, keep=1_000_000),
    total_steps=100,
  )
