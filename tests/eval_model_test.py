"""Encoders under evaluation, and the reuse of their features."""

import shutil

import jax
import numpy as np
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


def test_features_of_other_parameters_are_computed_again(run):
  state = run.initial_state()
  moved = jax.tree.map(lambda x: x + 1, state.online_params)
  before = eval_model.online(run, run.source, state).features("test")
  vectors = np.array(before.vectors)
  other = eval_model.online(
    run, run.source, state._replace(online_params=moved)
  )
  # One folder, whose files are replaced.
  after = other.features("test").vectors
  assert len([*(run.workdir / "features").iterdir()]) == 1
  images = np.concatenate(
    [batch["image"] for batch in other.eval_batches("test")]
  )
  np.testing.assert_allclose(after, other.encode(images), rtol=1e-4, atol=1e-5)
  assert np.max(np.abs(after - vectors)) > 0.1
