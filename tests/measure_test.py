"""Measured statistics against NumPy and known ones."""

import numpy as np

from byol_jax.data import loading, measure
from tests.input_cases import images_by_label


def test_statistics_are_those_that_numpy_computes(source):
  images = [image / 255 for image in images_by_label(source).values()]
  measured = measure.measure_statistics(source)
  pixels = np.concatenate([image.reshape(-1, 3) for image in images])
  np.testing.assert_allclose(measured.mean, pixels.mean(0), atol=1e-4)
  np.testing.assert_allclose(measured.std, pixels.std(0), atol=1e-4)
  assert measured.side == 20


def test_measured_statistics_are_near_those_known_of_the_digits(digits_dir):
  digits = loading.load("mnist_digits", digits_dir)
  measured = measure.measure_statistics(digits)
  known = digits.dataset.statistics
  np.testing.assert_allclose(measured.mean, known.mean, atol=0.01)
  np.testing.assert_allclose(measured.std, known.std, atol=0.01)
  assert measured.side == known.side
