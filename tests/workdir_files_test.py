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


def test_a_key_that_is_newer_than_the_workdir_had_its_default_there(workdir):
  path = workdir / "config.json"
  settings = json.loads(path.read_text())
  del settings["ema"]["base"]
  path.write_text(json.dumps(settings))
  workdir_files.check_settings(workdir, schema.Config())
  with pytest.raises(errors.UserError, match=r"ema\.base=0\.996, not 0\.9;"):
    workdir_files.check_settings(workdir, changed(ema__base=0.9))


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
