"""Sampling: distributions, and independence of the two views."""

import dataclasses
import math

import jax
import numpy as np
import pytest
import tensorflow as tf

from byol_jax.augment import sampling, spec
from byol_jax.runtime import devices
from tests.augment_cases import (
  GOLDEN,
  applier,
  both_placements,
  graph_ops,
  grayscale,
  noise,
  paper_view,
  plain_view,
  random_views,
  solarize,
  two_crops,
)


@both_placements
@pytest.mark.parametrize("name", ["view1", "view2"])
def test_random_views_have_the_references_statistics(name, placement):
  image = np.round(GOLDEN["32/images"][0] * 255).astype(np.uint8)
  view = dataclasses.replace(
    paper_view(name), crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0)
  )
  views = random_views(placement, image, view, 32, 4000)
  spread = float(GOLDEN[f"stats/std_of_image_mean_{name}"])
  # Four standard errors of the difference of two samples of 4000.
  np.testing.assert_allclose(
    views.mean((0, 1, 2)),
    GOLDEN[f"stats/mean_over_4000_{name}"],
    atol=4 * spread * math.sqrt(2 / 4000),
  )
  np.testing.assert_allclose(
    views.mean((1, 2, 3)).std(), spread, atol=4 * spread * math.sqrt(1 / 4000)
  )


@both_placements
@pytest.mark.parametrize(
  ("field", "changed"),
  [
    ("flip_prob", lambda image: image[:, ::-1]),
    ("grayscale_prob", lambda image: grayscale("host", image)),
    ("solarize_prob", lambda image: solarize("host", image)),
  ],
)
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_operation_happens_as_often_as_asked(
  field, changed, probability, placement
):
  image = noise(8, 8)
  view = plain_view(**{field: probability})
  views = random_views(placement, image, view, 8, 2000)
  plain = (image / 255).astype(np.float32)
  happened = np.isclose(views, changed(plain), atol=1e-6).all((1, 2, 3))
  untouched = np.isclose(views, plain, atol=1e-6).all((1, 2, 3))
  assert np.all(happened ^ untouched)
  error = math.sqrt(probability * (1 - probability) / 2000)
  np.testing.assert_allclose(happened.mean(), probability, atol=4 * error)


def test_all_random_numbers_of_two_views_come_from_one_draw():
  ops = graph_ops(
    lambda seed: two_crops(
      tf.constant(noise(32, 32)),
      paper_view("view1"),
      paper_view("view2"),
      32,
      seed,
    ),
    tf.TensorSpec([2], tf.int64),
  )
  assert ops.count("StatelessRandomUniformV2") == 1


@both_placements
def test_amounts_of_brightness_are_uniform(placement):
  image = np.full((4, 4, 3), 128, np.uint8)
  view = plain_view(jitter_prob=1.0, brightness=0.4)
  change = random_views(placement, image, view, 4, 2000)[:, 0, 0, 0] - 128 / 255
  assert -0.4 <= change.min() < -0.39
  assert 0.39 < change.max() <= 0.4
  np.testing.assert_allclose(change.std(), 0.8 / math.sqrt(12), atol=0.01)


def test_every_order_of_the_colour_operations_is_as_likely():
  view = paper_view("view1")
  u = np.random.RandomState(0).rand(4800, len(spec.RANDOM_NUMBERS))
  params = sampling.augment_params(
    tf, np.float32(u), view, spec.enabled_ops(view)
  )
  found, counts = np.unique(params.order, axis=0, return_counts=True)
  assert len(found) == 24
  error = math.sqrt(4800 / 24 * 23 / 24)
  np.testing.assert_allclose(counts, 200, atol=4 * error)


def test_parameters_can_be_divided_among_devices():
  """Arrays of size 0 cannot."""
  view = plain_view()
  u = np.zeros((4, len(spec.RANDOM_NUMBERS)), np.float32)
  params = sampling.augment_params(np, u, view, spec.enabled_ops(view))
  batch = next(devices.prefetch([{"params1": params}]))
  assert all(leaf.size for leaf in jax.tree.leaves(batch))
  assert batch["params1"].order == batch["params1"].extra == ()


def two_views(image, view1, view2, seed) -> tuple[np.ndarray, np.ndarray]:
  seed = tf.constant(seed, tf.int64)
  enabled = spec.enabled_ops(view1, view2)
  crop1, crop2, u1, u2 = two_crops(image, view1, view2, 32, seed)
  apply = applier("host", enabled)
  return tuple(
    apply(crop[None], sampling.augment_params(tf, u[None], view, enabled))[0]
    for crop, u, view in ((crop1, u1, view1), (crop2, u2, view2))
  )


def test_views_depend_on_seed_and_index():
  image, view = noise(40, 50), paper_view("view1")
  first = two_views(image, view, view, [0, 7])
  np.testing.assert_array_equal(first, two_views(image, view, view, [0, 7]))
  for seed in ([1, 7], [0, 8], [7, 0]):
    for a, b in zip(first, two_views(image, view, view, seed), strict=True):
      assert not np.allclose(a, b)


def test_two_views_of_an_image_are_independent():
  image = tf.fill((4, 4, 3), tf.constant(128, tf.uint8))
  view = plain_view(jitter_prob=1.0, brightness=0.4)
  dataset = tf.data.Dataset.range(1000).map(
    lambda i: two_crops(image, view, view, 4, tf.stack([0, i]))
  )
  crop1, crop2, u1, u2 = next(dataset.batch(1000).as_numpy_iterator())
  enabled = spec.enabled_ops(view)
  first, second = (
    applier("host", enabled)(
      crops, sampling.augment_params(tf, u, view, enabled)
    )
    for crops, u in ((crop1, u1), (crop2, u2))
  )
  correlation = np.corrcoef(first[:, 0, 0, 0], second[:, 0, 0, 0])[0, 1]
  assert abs(correlation) < 4 / math.sqrt(1000)


def test_random_numbers_of_two_views_do_not_correlate():
  image, view = tf.constant(noise(4, 4)), plain_view()
  dataset = tf.data.Dataset.range(2000).map(
    lambda i: two_crops(image, view, view, 4, tf.stack([0, i]))[2:]
  )
  u1, u2 = next(dataset.batch(2000).as_numpy_iterator())
  correlation = np.corrcoef(np.concatenate([u1, u2], axis=1).T)
  np.fill_diagonal(correlation, 0)
  np.testing.assert_array_less(np.abs(correlation), 5 / math.sqrt(2000))


def test_changing_one_view_leaves_the_other_alone():
  image, view = noise(40, 50), paper_view("view1")
  _, second = two_views(image, view, view, [0, 7])
  _, again = two_views(image, dataclasses.replace(view, hue=0.0), view, [0, 7])
  np.testing.assert_array_equal(second, again)
