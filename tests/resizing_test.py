"""Resized parts of images: the same numbers as by `tf.image.resize`."""

import numpy as np
import pytest
import tensorflow as tf

from byol_jax.data import resizing


def noise(height, width, channels):
  image = np.random.RandomState(0).randint(0, 256, (height, width, channels))
  return tf.constant(image, tf.uint8)


def resize(image, boxes, size):
  begins = [(top, left, 0) for top, left, _, _ in boxes]
  sizes = [(height, width, -1) for _, _, height, width in boxes]
  return resizing.resize_boxes(
    image, tf.constant(begins), tf.constant(sizes), (size, size)
  )


def random_boxes(height, width, count):
  """Boxes (top, left, height, width), of which the first is the whole image."""
  random = np.random.RandomState(1)
  boxes = [(0, 0, height, width)]
  while len(boxes) < count:
    h, w = random.randint(1, height + 1), random.randint(1, width + 1)
    top, left = random.randint(height - h + 1), random.randint(width - w + 1)
    boxes.append((top, left, h, w))
  return boxes


@pytest.mark.parametrize(
  ("shape", "size"),
  [
    ((90, 512, 3), 128),
    ((300, 70, 1), 131),  # Not a whole number of blocks.
    ((20, 513, 3), 128),
    ((1, 1, 3), 128),
    ((20, 1025, 3), 128),  # Too large to be padded.
    ((30, 40, 3), 127),  # Too small a result.
  ],
)
def test_results_are_those_of_tf_image_resize(shape, size):
  image = noise(*shape)
  boxes = random_boxes(*shape[:2], 6)
  results = resize(image, boxes, size)
  for (top, left, height, width), result in zip(boxes, results, strict=True):
    part = image[top : top + height, left : left + width]
    expected = tf.image.resize(part, (size, size), "bicubic")
    np.testing.assert_allclose(result / 255, expected / 255, atol=2e-6)


def test_shape_is_known_inside_tf_data():
  images = tf.data.Dataset.from_generator(
    lambda: [noise(40, 50, 3).numpy()],
    output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
  )
  results = images.map(lambda image: resize(image, [(2, 3, 20, 30)], 128))
  assert results.element_spec[0].shape == (128, 128, 3)
  assert np.isfinite(next(results.as_numpy_iterator())[0]).all()
