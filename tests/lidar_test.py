"""LiDAR counts the directions that tell images apart better than their views."""

import itertools

import numpy as np
import pytest
import scipy.linalg

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data import array_file, array_source
from byol_jax.data.source import WHOLE_BATCH, Pairs, ProcessSlice
from byol_jax.evaluation import eval_model, lidar
from tests import input_cases
from tests.eval_cases import measured, prepare, settled_state, small_config

RANDOM = np.random.RandomState(0)


def groups(images=60, views=8, size=6, spread=0.3):
  """Vectors of views around one centre for each image."""
  centres = RANDOM.randn(images, 1, size)
  return centres + spread * RANDOM.randn(images, views, size)


def by_definition(vectors):
  """LiDAR by generalised eigenvalues of the two scatter matrices."""
  means = vectors.mean(axis=1)
  spread = (vectors - means[:, None]).reshape(-1, vectors.shape[2])
  within = np.cov(spread.T, bias=True) + 1e-4 * np.eye(vectors.shape[2])
  values = scipy.linalg.eigh(
    np.cov(means.T, bias=True), within, eigvals_only=True
  )
  p = values / values.sum()
  return np.exp(-np.sum(p * np.log(p)))


def test_lidar_is_that_of_the_generalised_eigenvalues():
  vectors = groups() * np.linspace(0.2, 3, 6)
  vectors[..., 0] *= 1 + 5 * RANDOM.rand(60, 8)
  assert lidar.lidar(vectors) == pytest.approx(by_definition(vectors), rel=1e-3)


def test_lidar_does_not_depend_on_an_invertible_linear_map():
  vectors = groups()
  changed = vectors @ RANDOM.randn(6, 6) + 3
  assert lidar.lidar(changed) == pytest.approx(lidar.lidar(vectors), rel=0.02)


def test_lidar_of_known_groups():
  """As many directions as tell images apart, whatever else varies."""
  assert lidar.lidar(groups(200, spread=0.1)) > 5.7
  same = RANDOM.randn(1, 8, 6) * np.ones((60, 1, 1))
  assert lidar.lidar(same) == pytest.approx(1, abs=1e-3)
  line = groups(spread=0.01)
  line[..., 1:] = RANDOM.randn(60, 8, 5)  # Of large variance, and no use.
  assert lidar.lidar(line) < 1.1
  corners = np.eye(6)[:, None] + 0.01 * RANDOM.randn(6, 50, 6)
  assert lidar.lidar(corners) == pytest.approx(5, abs=0.1)  # About their mean.


@pytest.fixture(scope="module")
def arrays(source, tmp_path_factory):
  path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
  about = array_file.About(source.class_names, statistics=source.measure())
  array_file.write(path, {"train": source.decode("train", 3)}, about)
  return array_source.load(str(path))


def pairs_of(data_set, process=WHOLE_BATCH, turns=4):
  view = input_cases.CROP_ONLY
  batches = data_set.many_views(
    "train[3:90]",
    spec.Views(view, view, image_shape=(8, 8), placement="device"),
    schema.DataConfig(),
    pairs=Pairs(images=7, each=3),
    batch_size=6,
    seed=1,
    process=process,
  )
  return list(itertools.islice(batches, turns))


def test_each_image_gives_so_many_pairs_of_different_views(source, arrays):
  found = pairs_of(source)
  expected = [x["label"] for x in input_cases.eval_batches(source)]
  expected = np.concatenate(expected)[3:10]
  labels = np.concatenate([x["label"] for x in found])
  np.testing.assert_array_equal(labels[:21], np.repeat(expected, 3))
  np.testing.assert_array_equal(labels[21:], expected[[0]].repeat(3))
  views = np.concatenate(
    [x[name] for x in found for name in ("view1", "view2")]
  )
  assert len(np.unique(views, axis=0)) == len(views)
  for ours, theirs in zip(pairs_of(arrays), found, strict=True):
    np.testing.assert_array_equal(ours["label"], theirs["label"])
    off = np.asarray(ours["view1"], int) - theirs["view1"]
    assert np.abs(off).max() <= 1  # A level of 255, by rounding.


def test_processes_share_the_pairs(source, arrays):
  for data_set in (source, arrays):
    whole = pairs_of(data_set)
    for i in range(2):
      part = pairs_of(data_set, ProcessSlice(i, 2), 2)
      for ours, theirs in zip(part, whole[i::2], strict=True):
        np.testing.assert_array_equal(ours["view2"], theirs["view2"])


@pytest.mark.slow
def test_the_protocol_measures_views_by_each_model(tmp_path):
  cfg = small_config(tmp_path)
  cfg.evaluation.geometry.lidar_images = 20
  cfg.evaluation.geometry.lidar_pairs = 3
  run = prepare(tmp_path, cfg)
  state = settled_state(run)
  online = lambda run, source: eval_model.online(run, source, state)  # noqa: E731
  found = measured(run, "geometry", online)
  for name in ("lidar", "lidar_projection"):
    assert 1 < found[name]["value"] < 20
    assert found[name]["looked_at"] == 20
    assert found[name]["views"] == 6
  pixels = measured(run, "geometry")
  assert 1 < pixels["lidar"]["value"] < 20
  assert "lidar_projection" not in pixels
  # As in an encoder file, which has no heads.
  for name, module in state.online_params.items():
    if name.startswith("projector"):
      module.update({key: np.zeros_like(x) for key, x in module.items()})
  again = measured(run, "geometry", online)
  assert again["lidar"] == found["lidar"]
  assert "lidar_projection" not in again
