"""Random and centre crops against NumPy."""

import jax
import numpy as np
import pytest
import tensorflow as tf

from byol_jax.augment import sampling, spec
from byol_jax.data import crops
from tests.augment_cases import (
  crops_and_params,
  noise,
  paper_view,
  plain_view,
  two_crops,
)


def numpy_crop_box(u, view, height, width):
  """The reference's crop, computed again in float32 NumPy."""
  area, aspect, top, left = np.float32(u)
  low, high = view.crop_area
  pixels = np.float32(height * width) * np.float32(low + area * (high - low))
  low, high = np.log(view.crop_aspect)
  ratio = np.exp(np.float32(low + aspect * (high - low)))
  crop_width = int(np.clip(np.round(np.sqrt(pixels * ratio)), 1, width))
  crop_height = int(np.clip(np.round(np.sqrt(pixels / ratio)), 1, height))
  top = int(top * (height - crop_height + 1))
  left = int(left * (width - crop_width + 1))
  return top, left, crop_height, crop_width


@pytest.mark.parametrize(
  ("height", "width"),
  [(60, 80), (20, 400), (300, 12), (1, 1), (2, 3), (1, 50)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_is_the_box_that_numpy_computes(height, width, channels):
  image = noise(height, width, channels)
  view = paper_view("view1")
  for u in np.random.RandomState(1).rand(50, 4).astype(np.float32):
    top, left, h, w = numpy_crop_box(u, view, height, width)
    box = image[top : top + h, left : left + w].astype(np.float32)
    expected = tf.image.resize(box, (16, 16), "bicubic").numpy()
    expected = np.broadcast_to(expected, (16, 16, 3))
    actual = crops.random_crops(image, [u], [view], (16, 16))[0]
    np.testing.assert_allclose(actual / 255, expected / 255, atol=1e-5)


@pytest.mark.parametrize("u", [0.0, 1 - 2**-23])
def test_extreme_draws_stay_inside_the_image(u):
  (crop,) = crops.random_crops(
    noise(7, 5), [[u] * 4], [paper_view("view1")], (8, 8)
  )
  assert crop.shape == (8, 8, 3)
  assert np.isfinite(crop).all()


def test_full_crop_of_the_same_size_is_the_image():
  image = noise(28, 28)
  (crop,) = crops.random_crops(image, [[0.3] * 4], [plain_view()], (28, 28))
  np.testing.assert_allclose(crop / 255, image / 255, atol=1e-6)


@pytest.mark.parametrize(
  ("height", "width", "fraction"),
  [(256, 320, 0.875), (34, 20, 0.875), (28, 28, 1.0), (1, 9, 0.5)],
)
def test_centre_crop_is_the_central_square(height, width, fraction):
  image = noise(height, width)
  side = max(1, int(fraction * min(height, width)))
  top, left = (height - side + 1) // 2, (width - side + 1) // 2
  box = image[top : top + side, left : left + side].astype(np.float32)
  expected = tf.image.resize(box, (24, 24), "bicubic").numpy() / 255
  actual = crops.centre_crop(image, (24, 24), fraction)
  np.testing.assert_allclose(actual, np.clip(expected, 0, 1), atol=1e-6)


def test_grey_centre_crop_gets_three_equal_channels():
  image = crops.centre_crop(noise(28, 28, 1), (28, 28), 1.0).numpy()
  assert image.shape == (28, 28, 3)
  np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_eager_crop_is_the_one_inside_tf_data():
  image = noise(40, 50)
  view = paper_view("view2")
  mapped, all_params = crops_and_params(image, view, 32, 8)
  for i in range(8):
    seed = tf.constant([0, i], tf.int64)
    eager, _, u, _ = two_crops(image, view, view, 32, seed)
    np.testing.assert_allclose(eager / 255, mapped[i] / 255, atol=1e-6)
    params = sampling.augment_params(tf, u, view, spec.enabled_ops(view))
    of_one = jax.tree.map(lambda field, i=i: field[i], all_params)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, of_one
    )
