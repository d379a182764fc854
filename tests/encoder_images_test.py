"""An encoder shows images of any size to itself as evaluations do."""

import numpy as np
import pytest
import tensorflow as tf

from byol_jax import errors
from byol_jax.data import crops
from byol_jax.interop import images as images_lib

FORM = images_lib.Form(image_shape=(16, 16), channels=3, eval_crop=0.875)


def picture(*shape):
  return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("fraction", [0.875, 1.0, 0.3])
@pytest.mark.parametrize(
  "size", [(16, 16), (300, 401), (37, 20), (9, 64), (1, 5)]
)
def test_images_are_prepared_as_in_evaluations(size, fraction):
  for channels in (3, 1):
    image = picture(*size, channels)
    expected = crops.centre_crop(tf.constant(image), (16, 16), fraction)
    form = FORM._replace(eval_crop=fraction)
    for given in (image, image.astype(np.float64) / 255):
      found = images_lib.prepared(given, form)
      assert found.dtype == np.float32
      assert found.shape == (16, 16, channels)
      np.testing.assert_allclose(
        np.broadcast_to(found, expected.shape), expected, atol=1e-5
      )


def test_a_grey_encoder_sees_the_luminance_of_colours():
  """As evaluations do, which decode such images in one channel."""
  muted = picture(40, 30, 3) // 2 + 64  # JPEG would clip others.
  file = tf.io.encode_jpeg(muted, quality=100)
  colours = tf.io.decode_image(file).numpy()
  grey = tf.io.decode_image(file, channels=1)
  expected = crops.centre_crop(grey, (16, 16), 0.875)[..., :1]
  found = images_lib.prepared(colours, FORM._replace(channels=1))
  np.testing.assert_allclose(found, expected, atol=0.008)  # Two levels of 255.


def test_batches_and_images_without_channels_are_prepared():
  batch = picture(4, 20, 30, 3)
  found = images_lib.prepared(batch, FORM)
  for image, one in zip(batch, found, strict=True):
    np.testing.assert_allclose(images_lib.prepared(image, FORM), one, atol=1e-6)
  assert images_lib.prepared(batch[:0], FORM).shape == (0, 16, 16, 3)
  assert images_lib.prepared(batch[0, ..., 0], FORM).shape == (16, 16, 1)


@pytest.mark.parametrize(
  ("images", "expected"),
  [
    (picture(20, 30, 4), r"shape \(20, 30, 4\); give one image"),
    (picture(3, 20, 30), r"shape \(3, 20, 30\); give one image"),
    (picture(0, 30, 3), r"shape \(0, 30, 3\)"),
    (picture(30), r"shape \(30,\)"),
    (picture(20, 30, 3).astype(np.float32), "values from 0 to 255"),
    (np.full((20, 30, 3), np.nan), "values from nan to nan"),
    (picture(20, 30, 3).astype(np.uint16), "of type uint16"),
    (["a.jpg"], "of type <U5"),
  ],
)
def test_other_images_are_refused_in_one_line(images, expected):
  with pytest.raises(errors.UserError, match=expected) as raised:
    images_lib.prepared(images, FORM)
  assert "\n" not in str(raised.value)
