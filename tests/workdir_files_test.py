"""A workdir belongs to the settings of its checkpoints."""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.training import workdir_files


@pytest.fixture
def workdir(tmp_path):
  """A workdir of the default settings with one checkpoint."""
  workdir_files.write_settings(tmp_path, schema.Config(), "")
  return with_checkpoint(tmp_path)


def with_checkpoint(workdir):
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  return workdir


def check(workdir, config):
  workdir_files.check_settings(workdir, config, "")


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
  workdir_files.write_settings(tmp_path, schema.Config(), "")
  check(tmp_path, changed(ema__base=0.9))
  assert workdir_files.settings_of(tmp_path) == {}


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
  workdir_files.write_settings(tmp_path, one, "abc")
  with_checkpoint(tmp_path)
  workdir_files.check_settings(tmp_path, two, "abc")
  workdir_files.check_images(tmp_path, two, "abc")
  # Evaluation and export go on, training does not.
  for config in (one, two):
    workdir_files.check_settings(tmp_path, config, "def")
    assert workdir_files.has_other_images(tmp_path, "def")
    root = f"other images than data.root={config.data.root}"
    with pytest.raises(errors.UserError, match=root):
      workdir_files.check_images(tmp_path, config, "def")


def test_a_workdir_that_does_not_know_its_images_keeps_its_path(tmp_path):
  config = changed(data__root="/x")
  workdir_files.write_settings(tmp_path, config, "")
  with_checkpoint(tmp_path)
  workdir_files.check_settings(tmp_path, config, "abc")
  workdir_files.check_images(tmp_path, config, "abc")
  with pytest.raises(errors.UserError, match=r"data\.root=/x, not /y;"):
    workdir_files.check_settings(tmp_path, changed(data__root="/y"), "abc")


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
