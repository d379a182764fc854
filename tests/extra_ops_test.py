"""Operations that are off by default, and those that a user adds."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from byol_jax import errors
from byol_jax.augment import device_random, extra_ops, sampling, spec
from byol_jax.config import convert, schema
from byol_jax.data import crops
from byol_jax.training import build
from tests import command_line, pages
from tests.augment_cases import (
  applier,
  both_placements,
  crops_and_params,
  noise,
  paper_view,
  params_of,
  plain_view,
  random_views,
)


def darken(xp, image, u):
  """An operation of a user's own, with a strength."""
  return image * xp.maximum(u[0], u[3])


@pytest.fixture
def darkens(monkeypatch):
  monkeypatch.setitem(extra_ops.EXTRA_OPS, "darken", darken)


def turned(image, quarters):
  return np.rot90(image, quarters)


@both_placements
@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_views_are_turned_by_every_quarter_as_often(placement, probability):
  image = noise(6, 6)
  view = plain_view(rotate90_prob=probability)
  views = random_views(placement, image, view, 6, 1200)
  shares = [
    np.isclose(views, turned(image / 255, i), atol=1e-6).all((1, 2, 3)).mean()
    for i in range(4)
  ]
  assert sum(shares) == pytest.approx(1)
  expected = [1 - probability, *[probability / 3] * 3]
  # Four standard errors of a share of a half.
  np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(1200))


@both_placements
def test_top_and_bottom_are_swapped_as_often_as_asked(placement):
  image = noise(6, 6)
  views = random_views(
    placement, image, plain_view(vertical_flip_prob=0.3), 6, 1000
  )
  swapped = np.isclose(views, image[::-1] / 255, atol=1e-6).all((1, 2, 3))
  plain = np.isclose(views, image / 255, atol=1e-6).all((1, 2, 3))
  assert np.all(swapped ^ plain)
  assert swapped.mean() == pytest.approx(0.3, abs=4 * 0.5 / np.sqrt(1000))


def test_enabled_operations_leave_all_other_numbers_of_a_seed():
  seed = tf.constant([3, 7], tf.int64)
  usual = len(spec.RANDOM_NUMBERS)
  none, *some = (
    crops.random_numbers(seed, spec.enabled_ops(view)).numpy()
    for view in (
      plain_view(),
      plain_view(vertical_flip_prob=0.5),
      plain_view(vertical_flip_prob=0.5, extra=("darken=1",)),
    )
  )
  np.testing.assert_array_equal(
    none.ravel(), tf.random.stateless_uniform([2 * usual], seed)
  )
  for i, numbers in enumerate(some, 1):
    assert numbers.shape == (2, usual + i * (1 + spec.EXTRA_NUMBERS))
    np.testing.assert_array_equal(numbers[:, :usual], none)
    assert len(np.unique(numbers)) == numbers.size  # None is drawn twice.
  wide = (device_random.wide(3), device_random.wide(7))
  count = some[-1].size
  on_device = sampling.by_view(
    np, np.asarray(device_random.uniform(wide, count))
  )
  np.testing.assert_array_equal(on_device, some[-1])


@both_placements
def test_an_operation_of_ones_own_comes_last_with_its_numbers(
  placement, darkens
):
  view = dataclasses.replace(paper_view("view2"), extra=("darken=0.5",))
  enabled = spec.enabled_ops(view)
  images, params = crops_and_params(noise(40, 50), view, 16, 60)
  with_it = applier(placement, enabled)(images, params)
  without = applier(placement, spec.enabled_ops(paper_view("view2")))(
    images, params._replace(extra=(), extra_numbers=())
  )
  u, occurs = np.asarray(params.extra_numbers[:, 0]), params.extra[:, 0]
  factor = np.where(occurs, np.maximum(u[:, 0], u[:, 3]), 1)
  np.testing.assert_allclose(
    with_it, without * factor[:, None, None, None], atol=1e-5
  )
  assert 15 < np.sum(occurs) < 45


def test_a_view_takes_an_operation_of_the_other_with_its_own_probability(
  darkens,
):
  views = plain_view(extra=("darken=1",)), plain_view(rotate90_prob=1.0)
  enabled = spec.enabled_ops(*views)
  assert enabled.extra == ("darken", "rotate90")
  numbers = crops.random_numbers(tf.constant([0, 1], tf.int64), enabled)
  occurs = [
    sampling.augment_params(tf, row, view, enabled).extra.numpy().tolist()
    for row, view in zip(numbers, views, strict=True)
  ]
  assert occurs == [[True, False], [False, True]]


@both_placements
def test_a_slant_moves_rows_and_a_turn_turns(placement):
  """Computed by SciPy, which interpolates and repeats borders likewise."""
  image = noise(9, 12).astype(np.float32)
  enabled = spec.enabled_ops(plain_view(extra=("slant=1",)))
  apply = applier(placement, enabled)

  def found(turn, slant):
    numbers = np.zeros((1, spec.EXTRA_NUMBERS), np.float32)
    numbers[0, :2] = (turn + 1) / 2, (slant + 1) / 2
    params = params_of(1, extra=np.ones(1, bool), extra_numbers=numbers)
    return np.asarray(apply(image[None], params))[0]

  def sheared(pixels, amount, axis):
    matrix = np.eye(3)
    matrix[axis, 1 - axis] = amount
    middle = (np.array(pixels.shape) - 1) / 2 * [1, 1, 0]
    return ndimage.affine_transform(
      pixels, matrix, middle - matrix @ middle, order=1, mode="nearest"
    )

  np.testing.assert_allclose(found(0, 0), image / 255, atol=1e-6)
  slanted = sheared(image / 255, 0.4, axis=1)
  np.testing.assert_allclose(found(0, 1), slanted, atol=1e-5)
  turned = sheared(sheared(image / 255, 0.25, axis=1), -0.25, axis=0)
  np.testing.assert_allclose(found(-1, 0), turned, atol=1e-5)


@both_placements
def test_results_are_clipped(placement, monkeypatch):
  monkeypatch.setitem(
    extra_ops.EXTRA_OPS, "brighten", lambda xp, image, u: image + 0.75
  )
  params = params_of(
    1,
    extra=np.ones(1, bool),
    extra_numbers=np.zeros((1, spec.EXTRA_NUMBERS), np.float32),
  )
  enabled = spec.enabled_ops(plain_view(extra=("brighten=1",)))
  crop = np.full((1, 4, 4, 3), 102, np.float32)
  view = applier(placement, enabled)(crop, params)
  np.testing.assert_array_equal(view, 1)


def test_an_unknown_operation_lists_the_known_ones():
  config = convert.updated(
    schema.Config(), {"augment.view2.extra": ("erase=0.5",)}
  )
  with pytest.raises(
    errors.UserError, match=r"'erase' is unknown.*vertical_flip, rotate90"
  ):
    build.make_views(config)


def example():
  """The experiment file of docs/variants.md."""
  page = (command_line.ROOT / "docs" / "variants.md").read_text()
  section = page.partition("an image of the same shape:\n")[2]
  return "\n".join(pages.code(section.partition("\n## ")[0] + "\n"))


@both_placements
def test_the_example_erases_a_box(placement, monkeypatch):
  monkeypatch.setattr(extra_ops, "EXTRA_OPS", dict(extra_ops.EXTRA_OPS))
  scope = {}
  exec(example(), scope)
  assert scope["get_config"]().augment.view1.extra == ("erase=0.5",)
  params = params_of(
    1, extra=np.ones(1, bool), extra_numbers=np.float32([[0.51, 0.26, 0.5, 0]])
  )
  enabled = spec.enabled_ops(plain_view(extra=("erase=1",)))
  crop = np.zeros((1, 20, 20, 3), np.float32)
  (view,) = applier(placement, enabled)(crop, params)
  erased = np.zeros((20, 20, 3))
  erased[8:14, 4:8] = 0.5  # 0.51 +- 0.15 and 0.26 +- 0.1 of 20 pixels.
  np.testing.assert_array_equal(view, erased)


@pytest.mark.slow
def test_a_run_takes_the_example_a_preset_and_keys_that_win(
  tmp_path, digits_dir
):
  path = tmp_path / "own.py"
  path.write_text(example())
  done = command_line.run(
    f"--config={path}",
    *command_line.TINY[1:],
    f"--workdir={tmp_path / 'run'}",
    "--config.train.steps=2",
    "--config.evaluation.protocols=()",
    "--config.augment.preset=symmetric",
    "--config.augment.view2.blur_prob=0.25",
    "--config.augment.view2.rotate90_prob=0.5",
    "--config.augment.view2.extra=erase=0.25",
    data_dir=digits_dir,
  )
  assert done.returncode == 0, done.stderr
  augment = json.loads((tmp_path / "run/config.json").read_text())["augment"]
  view1, view2 = augment["view1"], augment["view2"]
  assert augment["preset"] == ""
  assert (view1["blur_prob"], view1["solarize_prob"]) == (0.5, 0.2)
  assert (view2["blur_prob"], view2["solarize_prob"]) == (0.25, 0.2)
  assert (view1["extra"], view2["extra"]) == (["erase=0.5"], ["erase=0.25"])
