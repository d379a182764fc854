"""Both placements give the same images."""

import jax
import numpy as np
import pytest
import tensorflow as tf
from sklearn import datasets as sklearn_datasets

from byol_jax.augment import device_ops, spec
from tests.augment_cases import (
  applier,
  blur,
  change_colour,
  crops_and_params,
  grayscale,
  noise,
  paper_view,
  solarize,
)

SIZES = (19, 32, 64, 96, 224)


PHOTOS = sklearn_datasets.load_sample_images().images


# Amounts to compare at; other operations take some of their whole range.
AMOUNTS = {
  "brightness": (-0.4, -0.1, 0.0, 0.25, 0.4, 1.0),
  "contrast": (0.0, 0.6, 1.0, 1.2, 1.4),
  "saturation": (0.0, 0.8, 1.0, 1.1, 1.2, 3.0),
  "hue": (-0.5, -0.1, -0.03, 0.0, 0.05, 0.1, 1 / 3, 0.5),
}


def images(size) -> dict[str, np.ndarray]:
  """Images in [0, 1] of all kinds, among them those that have no hue."""
  steps = np.linspace(0, 1, size, dtype=np.float32)
  ramp = np.broadcast_to(steps[:, None], (size, size))
  corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T
  saturated = corners[np.arange(size * size) % 8].reshape(size, size, 3)
  of_photos = {
    f"photo {i}": tf.image.resize(photo, (size, size), "area").numpy() / 255
    for i, photo in enumerate(PHOTOS)
  }
  return of_photos | {
    "noise": noise(size, size) / np.float32(255),
    "continuous noise": np.random.RandomState(1).rand(size, size, 3),
    "grey": np.stack([ramp] * 3, axis=-1),
    "nearly grey": np.stack([ramp, ramp, np.nextafter(ramp, 2)], axis=-1),
    "two channels alike": np.stack([ramp, ramp.T, ramp], axis=-1),
    "black": np.zeros((size, size, 3)),
    "white": np.ones((size, size, 3)),
    "saturated": saturated,
    "half": np.full((size, size, 3), 0.5),
  }


def assert_same(size, operation):
  for name, image in images(size).items():
    image = image.astype(np.float32)
    host, device = operation("host", image), operation("device", image)
    np.testing.assert_allclose(device, host, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", [19, 64, 224])
@pytest.mark.parametrize("name", spec.COLOUR_OPS)
def test_colours_change_alike(name, size):
  neutral, most = spec.COLOUR_OPS[name]
  whole_range = neutral + most * np.linspace(-1, 1, 5)
  for amount in np.float32(AMOUNTS.get(name, whole_range)):
    assert_same(
      size, lambda *given, by=amount: np.clip(change(name, by, *given), 0, 1)
    )


def change(name, amount, placement, image):
  return change_colour(placement, name, image, amount)


@pytest.mark.parametrize("size", SIZES)
def test_grayscale_is_alike(size):
  assert_same(size, grayscale)


@pytest.mark.parametrize("size", SIZES)
def test_solarize_is_alike(size):
  assert_same(size, solarize)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_alike(size, sigma):
  sigma = np.float32(sigma)
  assert_same(size, lambda placement, image: blur(placement, image, sigma))


@pytest.mark.parametrize(("size", "count"), [(32, 100), (64, 60), (224, 8)])
@pytest.mark.parametrize("name", ["view1", "view2"])
@pytest.mark.parametrize("real", [False, True])
def test_whole_views_are_alike(name, size, count, real):
  image = PHOTOS[0] if real else noise(60, 80)
  view = paper_view(name)
  enabled = spec.enabled_ops(view)
  crops, params = crops_and_params(image, view, size, count)
  host = applier("host", enabled)(crops, params)
  device = applier("device", enabled)(crops, params)
  np.testing.assert_allclose(device, host, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_give_the_views_of_their_floats(channels):
  view = paper_view("view2")
  crops, params = crops_and_params(noise(40, 50, channels), view, 32, 16)
  crops = np.clip(crops.round(), 0, 255)[..., :channels].astype(np.uint8)
  enabled = spec.enabled_ops(view)
  actual = applier("device", enabled)(crops, params)
  floats = np.broadcast_to(crops, (*crops.shape[:3], 3)).astype(np.float32)
  expected = applier("host", enabled)(floats, params)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_views_keep_full_precision_inside_a_program_of_lower_precision():
  view = paper_view("view1")
  crops, params = crops_and_params(noise(40, 50), view, 32, 4)
  params = jax.tree.map(np.asarray, params)
  with jax.default_matmul_precision("bfloat16"):
    program = str(
      jax.make_jaxpr(
        lambda crops: device_ops.apply(crops, params, spec.enabled_ops(view))
      )(crops)
    )
  assert "HIGHEST" in program
  assert "DEFAULT" not in program
