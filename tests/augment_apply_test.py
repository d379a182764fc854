"""Applying augmentation parameters: its laws, and what it compiles."""

import dataclasses

import jax
import jax.extend
import numpy as np
import pytest
import tensorflow as tf

from byol_jax.augment import device_ops, spec
from byol_jax.data import host_ops
from tests.augment_cases import (
  applier,
  both_placements,
  crops_and_params,
  graph_ops,
  noise,
  paper_view,
  params_of,
  plain_view,
  random_views,
)


def jaxpr_ops(function, *args) -> set[str]:
  """The primitives of a JAX function, also inside its loops and branches."""

  def primitives(jaxpr):
    for equation in jaxpr.eqns:
      yield equation.primitive.name
      for inner in jax.extend.core.jaxprs_in_params(equation.params):
        yield from primitives(inner)

  return set(primitives(jax.make_jaxpr(function)(*args).jaxpr))


def test_disabled_operations_are_not_built():
  def host(view):
    enabled = spec.enabled_ops(view)
    params = crops_and_params(noise(32, 32), view, 32, 2)[1]
    return set(
      graph_ops(
        lambda crops: host_ops.apply(crops, params, enabled),
        tf.TensorSpec([2, 32, 32, 3], tf.float32),
      )
    )

  branches = {"If", "StatelessIf", "Case", "StatelessCase"}
  plain = host(plain_view())
  assert not plain & (branches | {"Pad", "SelectV2"})
  hue = host(plain_view(jitter_prob=0.5, hue=0.1))
  assert hue & branches
  assert "Pad" not in hue
  blurred = host(plain_view(blur_prob=0.5))
  assert "Pad" in blurred
  assert not blurred & {"Case", "StatelessCase"}


def test_disabled_operations_are_not_built_on_the_device():
  def device(view):
    enabled = spec.enabled_ops(view)
    crops, params = crops_and_params(noise(32, 32), view, 32, 2)
    params = jax.tree.map(np.asarray, params)
    return jaxpr_ops(
      lambda crops: device_ops.apply(crops, params, enabled), crops
    )

  costly = {"scan", "while", "cond", "dot_general", "rev", "select_n"}
  assert not device(plain_view()) & costly
  hue = device(plain_view(jitter_prob=0.5, hue=0.1))
  assert "select_n" in hue
  assert not hue & {"dot_general", "rev", "scan", "while", "cond"}
  blurred = device(plain_view(blur_prob=0.5))
  assert "dot_general" in blurred
  assert not blurred & {"scan", "while", "cond", "rev"}


@both_placements
def test_colour_operations_come_in_every_order(placement):
  # Clipping between brightness and contrast tells their orders apart.
  image = np.zeros((2, 2, 3), np.uint8)
  image[0] = 255
  view = plain_view(jitter_prob=1.0, brightness=0.4, contrast=0.4)
  params = params_of(2, jitter=True, amounts=np.float32([0.32, 1.32]))
  params = params._replace(order=np.int32([[0, 1], [1, 0]]))
  crops = np.stack([image, image]).astype(np.float32)
  brightness_first, contrast_first = applier(placement, spec.enabled_ops(view))(
    crops, params
  )
  # Brightness: 1 and 0.32. Contrast, of mean 0.66: 1.1088 and 0.2112.
  np.testing.assert_allclose(brightness_first[0], 1.0, atol=1e-6)
  np.testing.assert_allclose(brightness_first[1], 0.2112, atol=1e-6)
  # Contrast: 1 and 0 once clipped. Brightness: 1 and 0.32.
  np.testing.assert_allclose(contrast_first[0], 1.0, atol=1e-6)
  np.testing.assert_allclose(contrast_first[1], 0.32, atol=1e-6)
  views = random_views(placement, image, view, 2, 200)
  assert len(np.unique(views.round(5), axis=0)) > 100


@both_placements
def test_operations_of_the_other_view_leave_a_view_alone(placement):
  image = noise(40, 50)
  view = plain_view(jitter_prob=1.0, contrast=0.4, crop_area=(0.3, 1.0))
  alone = random_views(placement, image, view, 32, 16)
  enabled = spec.enabled_ops(view, paper_view("view2"))
  apply = applier(placement, enabled)
  beside = apply(*crops_and_params(image, view, 32, 16, enabled))
  np.testing.assert_allclose(beside, alone, atol=1e-6)


@both_placements
def test_overshoot_of_bicubic_is_clipped_before_anything_else(placement):
  crop = np.full((1, 4, 4, 3), 300, np.float32)
  crop[:, :2] = -50
  view = plain_view(jitter_prob=1.0, brightness=0.5)
  params = params_of(
    1, jitter=True, order=np.int32([0]), amounts=np.float32([-0.25])
  )
  (view,) = applier(placement, spec.enabled_ops(view))(crop, params)
  np.testing.assert_allclose(view[2:], 0.75, atol=1e-6)
  params = params._replace(amounts=np.float32([[0.25]]))
  view = plain_view(jitter_prob=1.0, brightness=0.5)
  (view,) = applier(placement, spec.enabled_ops(view))(crop, params)
  np.testing.assert_allclose(view[:2], 0.25, atol=1e-6)


@both_placements
@pytest.mark.parametrize(
  "shape", [(40, 50, 3), (40, 50, 1), (5, 500, 3), (1, 1, 3)]
)
def test_any_image_becomes_a_view_in_range(shape, placement):
  views = random_views(placement, noise(*shape), paper_view("view2"), 32, 64)
  assert views.shape == (64, 32, 32, 3)
  assert views.dtype == np.float32
  assert views.min() >= 0
  assert views.max() <= 1


@both_placements
def test_jitter_without_any_strength_changes_nothing(placement):
  image = noise(8, 8)
  view = random_views(placement, image, plain_view(jitter_prob=1.0), 8, 1)[0]
  np.testing.assert_allclose(view, image / 255, atol=1e-6)


def varied_crops_and_params(count) -> tuple[np.ndarray, spec.AugmentParams]:
  """Crops of 32 pixels; some parameters ask for every operation."""
  view = dataclasses.replace(
    paper_view("view2"), blur_prob=0.5, solarize_prob=0.5
  )
  return crops_and_params(noise(40, 50), view, 32, count)


@both_placements
def test_compiled_views_equal_views_that_are_not_compiled(placement):
  crops, params = varied_crops_and_params(24)
  enabled = spec.enabled_ops(paper_view("view2"))
  compiled = applier(placement, enabled)(crops, params)
  plain = applier(placement, enabled, jitted=False)(crops, params)
  # Four colour operations and a blur each add a rounding error.
  np.testing.assert_allclose(compiled, plain, atol=2e-6)


@both_placements
def test_a_view_does_not_depend_on_others_in_its_batch(placement):
  crops, params = varied_crops_and_params(10)
  apply = applier(placement, spec.enabled_ops(paper_view("view2")))
  whole = apply(crops, params)
  for n in (1, 2, 5):
    parts = [
      apply(
        crops[i : i + n],
        spec.AugmentParams(*(field[i : i + n] for field in params)),
      )
      for i in range(0, 10, n)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    if placement == "host":  # It takes images one by one.
      np.testing.assert_array_equal(np.concatenate(parts), whole)
