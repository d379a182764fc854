"""Each operation of both placements against the reference."""

import numpy as np
import pytest

from byol_jax.augment import spec
from byol_jax.data import host_ops
from tests.augment_cases import (
  GOLDEN,
  applier,
  blur,
  both_placements,
  change_colour,
  grayscale,
  paper_view,
  params_of,
  solarize,
)

REFERENCE_COLOUR_OPS = ("brightness", "contrast", "saturation", "hue")
SIZES = (32, 64, 96, 128, 160, 224)


@both_placements
@pytest.mark.parametrize("name", REFERENCE_COLOUR_OPS)
def test_colour_operation_is_the_references(name, placement):
  for j, amount in enumerate(GOLDEN[f"factors/{name}"]):
    for image, expected in zip(
      GOLDEN["32/images"], GOLDEN[f"32/{name}/{j}"], strict=True
    ):
      actual = change_colour(placement, name, image, amount)
      np.testing.assert_allclose(actual, expected, atol=1e-6)


@both_placements
@pytest.mark.parametrize("name", spec.COLOUR_OPS)
def test_neutral_amount_changes_nothing(name, placement):
  neutral = spec.COLOUR_OPS[name].neutral
  image = GOLDEN["32/images"][0]
  actual = change_colour(placement, name, image, neutral)
  np.testing.assert_allclose(actual, image, atol=1e-6)


@both_placements
def test_grayscale_is_the_references_in_three_channels(placement):
  gray = grayscale(placement, GOLDEN["32/images"])
  expected = np.repeat(GOLDEN["32/grayscale"], 3, axis=-1)
  np.testing.assert_allclose(gray, expected, atol=1e-6)


@both_placements
def test_solarize_is_the_references(placement):
  for image, expected in zip(
    GOLDEN["32/images"], GOLDEN["32/solarize"], strict=True
  ):
    np.testing.assert_array_equal(solarize(placement, image), expected)


@both_placements
@pytest.mark.parametrize(("size", "j"), [(32, 0), (32, 1), (32, 2), (64, 2)])
def test_blur_is_the_references_up_to_the_dark_border(size, j, placement):
  sigma = GOLDEN["factors/sigma"][j]
  for image, expected in zip(
    GOLDEN[f"{size}/images"], GOLDEN[f"{size}/blur/{j}"], strict=True
  ):
    blurred = blur(placement, image, sigma)
    np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_blur_taps_are_the_references(size):
  for j, sigma in enumerate(GOLDEN["factors/sigma"]):
    taps = host_ops.blur_taps((size, size), sigma)
    expected = GOLDEN[f"taps/{size}/{j}"]
    np.testing.assert_allclose(taps, expected, rtol=2e-5, atol=1e-9)


@both_placements
@pytest.mark.parametrize("size", SIZES)
def test_blur_spreads_a_line_by_the_references_taps_up_to_the_border(
  size, placement
):
  lines = (1, size // 2, size - 1)  # One in each channel.
  image = np.zeros((size, size, 3), np.float32)
  for channel, line in enumerate(lines):
    image[line, :, channel] = 1
  for j, sigma in enumerate(GOLDEN["factors/sigma"]):
    taps = GOLDEN[f"taps/{size}/{j}"]
    radius = len(taps) // 2
    expected = np.zeros((size + 2 * radius, 3), np.float32)
    for channel, line in enumerate(lines):
      expected[line : line + len(taps), channel] = taps
    expected = expected[radius : size + radius]
    rows = blur(placement, image, sigma)
    columns = blur(placement, image.transpose(1, 0, 2), sigma)
    # Across the line, where no border takes anything of its length.
    for across in (rows[:, size // 2], columns[size // 2]):
      np.testing.assert_allclose(across, expected, rtol=2e-5, atol=1e-9)


@both_placements
@pytest.mark.parametrize("size", [32, 96])
def test_blur_spreads_a_point_over_rows_and_columns_alike(size, placement):
  radius = spec.blur_radius((size, size))
  taps = host_ops.blur_taps((size, size), 1.5).numpy()
  points = ((0, 0), (size // 3, size - 1), (size // 2, radius + 1))
  image = np.zeros((size, size, 3), np.float32)
  padded = np.zeros((size + 2 * radius, size + 2 * radius, 3), np.float32)
  for channel, (row, column) in enumerate(points):
    image[row, column, channel] = 1
    window = np.s_[row : row + len(taps), column : column + len(taps), channel]
    padded[window] = np.outer(taps, taps)
  expected = padded[radius : radius + size, radius : radius + size]
  blurred = blur(placement, image, 1.5)
  np.testing.assert_allclose(blurred, expected, rtol=1e-5, atol=1e-9)


@both_placements
def test_image_too_small_to_blur_stays_as_it_is(placement):
  image = GOLDEN["32/images"][0][:19, :19]
  np.testing.assert_array_equal(blur(placement, image, 2.0), image)


@both_placements
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("at_once", [False, True])
def test_chain_of_all_operations_is_the_references(size, at_once, placement):
  amounts = {"brightness": 0.2, "contrast": 1.4, "saturation": 1.2, "hue": 0.05}

  def chain(image):
    for name, amount in amounts.items():
      image = change_colour(placement, name, image, np.float32(amount))
      image = np.clip(image, 0, 1)
    return np.clip(solarize(placement, blur(placement, image, 1.0)), 0, 1)

  images = GOLDEN[f"{size}/images"]
  if at_once:
    params = params_of(
      len(images),
      jitter=True,
      order=np.arange(4, dtype=np.int32),
      amounts=np.float32(list(amounts.values())),
      blur=True,
      solarize=True,
    )
    enabled = spec.enabled_ops(paper_view("view2"))
    actual = applier(placement, enabled)(images * 255, params)
  else:
    actual = np.stack([chain(image) for image in images])
  different = ~np.isclose(actual, GOLDEN[f"{size}/chain"], rtol=0, atol=1e-5)
  # Rounding may carry a value of one half across solarisation's threshold.
  np.testing.assert_array_less(np.abs(actual - 0.5)[different], 1e-5)
  assert different.mean() < 1e-3
