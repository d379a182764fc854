"""Channel statistics, computed once more by other means."""

import numpy as np
import PIL.Image

from byol_jax.data import statistics
from tests.image_folders import PHOTOS, encoded, fill, load, photo


def test_statistics_are_those_of_the_training_images(tmp_path):
  rng = np.random.RandomState(0)
  sizes = [(8, 12), (7, 40), (33, 50), (1, 1), (9, 8)]
  images = [rng.randint(0, 128, (*size, 3), np.uint8) for size in sizes]
  files = {
    f"train/{i}.png": encoded(PIL.Image.fromarray(image), "PNG")
    for i, image in enumerate(images)
  }
  files["test/a.png"] = encoded(PIL.Image.new("RGB", (99, 99), "white"), "PNG")
  folder = load(fill(tmp_path / "root", files))
  pixels = [x if min(x.shape[:2]) < 8 else x[::4, ::4] for x in images]
  pixels = [x.reshape(-1, 3) / 255 for x in pixels]
  mean = np.mean([x.mean(axis=0) for x in pixels], axis=0)
  square = np.mean([(x**2).mean(axis=0) for x in pixels], axis=0)
  np.testing.assert_allclose(folder.statistics.mean, mean, atol=6e-5)
  np.testing.assert_allclose(
    folder.statistics.std, np.sqrt(square - mean**2), atol=6e-5
  )
  assert folder.statistics.side == 8  # Of 1, 7, 8, 8, 33, 99.
  assert all(
    round(x, 4) == x for x in folder.statistics.mean + folder.statistics.std
  )


def test_every_fourth_pixel_of_a_photo_is_exact_enough(tmp_path):
  folder = load(fill(tmp_path / "root", {"a.png": photo(0, "PNG")}))
  pixels = np.asarray(PHOTOS[0]) / 255
  np.testing.assert_allclose(
    folder.statistics.mean, pixels.mean(axis=(0, 1)), atol=0.02
  )
  np.testing.assert_allclose(
    folder.statistics.std, pixels.std(axis=(0, 1)), atol=0.02
  )


def test_deviation_is_never_zero(tmp_path):
  black = encoded(PIL.Image.new("RGB", (9, 9)), "PNG")
  folder = load(fill(tmp_path / "root", {"a.png": black}))
  assert (folder.statistics.mean, folder.statistics.std) == (
    (0, 0, 0),
    (1e-3, 1e-3, 1e-3),
  )


def test_without_a_stride_all_pixels_of_all_images_count():
  images = np.random.RandomState(0).randint(0, 256, (5, 9, 14, 3), np.uint8)
  found = statistics.summarize(
    [statistics.channel_moments(image) for image in images], [9] * 5
  )
  mean, std = (images / 255).mean((0, 1, 2)), (images / 255).std((0, 1, 2))
  np.testing.assert_allclose(found.mean, mean, atol=6e-5)
  np.testing.assert_allclose(found.std, std, atol=6e-5)
  assert found.side == 9


def test_each_image_has_the_same_weight_whatever_its_size():
  white = np.full((30, 20, 3), 255, np.uint8)
  black = np.zeros((1, 1, 3), np.uint8)
  found = statistics.summarize(
    [statistics.channel_moments(image) for image in (white, black)], [20, 1]
  )
  assert found == ((0.5,) * 3, (0.5,) * 3, 10)
