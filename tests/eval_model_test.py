"""Encoders under evaluation, and the reuse of their features."""

import shutil

import jax
import pytest

from byol_jax.evaluation import eval_model
from byol_jax.evaluation.splits import open_source
from byol_jax.training import runs
from tests.eval_cases import prepare, small_config, store_colours


@pytest.fixture
def run(tmp_path):
  return prepare(tmp_path, small_config(tmp_path))


def test_halves_of_a_split_are_kept_apart(run):
  model = eval_model.pixels(run, run.source)
  for _ in range(2):
    first, second = (
      model.features(split) for split in ("train[:50%]", "train[50%:]")
    )
    assert len(first.labels) + len(second.labels) == 53
  assert len([*(run.workdir / "features").iterdir()]) == 2


def test_data_that_changed_in_place_are_read_again(run, tmp_path):
  before = eval_model.pixels(run, run.source).features("test")
  shutil.rmtree(tmp_path / "cifar10")
  store_colours(tmp_path, train=53, test=17)
  source = open_source(runs.prepare(run.config, run.workdir))
  after = eval_model.pixels(run, source).features("test")
  assert (len(before.labels), len(after.labels)) == (31, 17)


def test_features_of_other_parameters_are_made_anew(run):
  source = run.source
  state = run.initial_state()
  one = eval_model.online(run, source, state)
  moved = jax.tree.map(lambda x: x + 1, state.online_params)
  other = eval_model.online(run, source, state._replace(online_params=moved))
  assert one.cache_key != other.cache_key
  (folder,) = {m.features("test") and m.name for m in (one, other)}
  assert folder == "online"
  assert len([*(run.workdir / "features").iterdir()]) == 1
