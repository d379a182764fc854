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
