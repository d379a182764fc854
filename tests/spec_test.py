"""The specification of views: its tables fit each other and the functions."""

import dataclasses

import pytest

from byol_jax.augment import colours, spec
from tests.augment_cases import plain_view

VIEW_FIELDS = {field.name for field in dataclasses.fields(spec.View)}


def test_every_colour_operation_has_its_function():
  assert list(colours.COLOUR_OPS) == list(spec.COLOUR_OPS)


def test_every_operation_has_its_fields():
  assert set(spec.EnabledOps._fields) == {*spec.OPS, "extra"}
  assert set(spec.OPS) < set(spec.AugmentParams._fields)
  assert {f"{name}_prob" for name in spec.OPS} < VIEW_FIELDS
  assert set(spec.COLOUR_OPS) < VIEW_FIELDS


def test_random_numbers_keep_their_order():
  """Another order would change the views that belong to a seed."""
  assert spec.RANDOM_NUMBERS[:4] == ("area", "aspect", "top", "left")
  assert spec.RANDOM_NUMBERS[4:8] == (
    "brightness amount",
    "contrast amount",
    "saturation amount",
    "hue amount",
  )
  assert spec.RANDOM_NUMBERS[8:12] == tuple(f"order {i}" for i in range(4))
  assert spec.RANDOM_NUMBERS[12:] == (
    "flip",
    "jitter",
    "grayscale",
    "blur",
    "blur sigma",
    "solarize",
  )


def test_only_operations_that_some_view_asks_for_are_enabled():
  nothing = spec.enabled_ops(plain_view())
  assert nothing == spec.EnabledOps(False, (), False, False, False)
  # Strength without probability, and probability without strength.
  idle = spec.enabled_ops(plain_view(hue=0.1), plain_view(jitter_prob=1.0))
  assert idle == nothing
  two = spec.enabled_ops(
    plain_view(jitter_prob=0.5, hue=0.1, blur_prob=0.1),
    plain_view(jitter_prob=0.5, contrast=0.1, flip_prob=0.5),
  )
  assert two == spec.EnabledOps(True, ("contrast", "hue"), False, True, False)


@pytest.mark.parametrize(
  ("size", "radius"), [(19, 0), (20, 1), (32, 1), (64, 3), (224, 11)]
)
def test_blur_spans_a_tenth_of_the_image(size, radius):
  assert spec.blur_radius((size, size)) == radius
