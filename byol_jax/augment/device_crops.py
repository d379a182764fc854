"""Cuts random crops out of images on the device and resizes them.

`data.crops` does the same in TensorFlow. A bicubic resize is separable, so a crop
is a product of the image with a matrix of weights on either side, which
accelerators compute fast whatever the crop's size.
"""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp

from byol_jax.augment import sampling, spec

# TensorFlow looks its weights up at this many positions between two pixels.
_TABLE_SIZE = 1024
# Images are float32 while they are resized, so that large ones take turns. Our
# choice: the pixels of 600 photos of 500x333, which take 1.2 GB.
_PIXELS_TOGETHER = 100_000_000


def random_crops(
  pixels: chex.Array, sizes: chex.Array, numbers: chex.Array, views: spec.Views
) -> tuple[chex.Array, chex.Array]:
  """Returns the crops of both views of images, resized.

  Args:
    pixels: [B, H, W, C] uint8 or uint16; images stand at the top left.
    sizes: [B, 2] int32, height and width of each image.
    numbers: [B, 2, N] in [0, 1), the numbers of both views, see `sampling.by_view`.
    views: specification of both views.

  Returns:
    Twice [B, *views.image_shape, C] of the same type, as the host makes them with
    `augment.placement=device`. A value differs by at most 1 from the host's.
  """

  def boxes_of(size: chex.Array, u: chex.Array) -> sampling.Boxes:
    crops = (views.view1, views.view2)
    return sampling.crop_boxes(
      jnp, size[:1], size[1:], u, crops, views.image_shape
    )

  boxes = jax.vmap(boxes_of)(
    sizes.astype(jnp.float32), sampling.crop_numbers(numbers)
  )

  def view(v: int) -> chex.Array:
    crops = resize(
      pixels, jax.tree.map(lambda x: x[:, v], boxes), views.image_shape
    )
    crops = jnp.clip(jnp.round(crops), 0, spec.white(pixels.dtype))
    return crops.astype(pixels.dtype)

  return view(0), view(1)


def resize(
  pixels: chex.Array, boxes: sampling.Boxes, image_shape: tuple[int, int]
) -> chex.Array:
  """Returns a region of each image, resized by bicubic interpolation.

  Args:
    pixels: [B, H, W, C].
    boxes: the regions, [B] each.
    image_shape: height and width of the results, pixels.

  Returns:
    [B, *image_shape, C] float32, not clipped.
  """

  def resize_one(example: tuple[chex.Array, sampling.Boxes]) -> chex.Array:
    image, box = example
    height, width = image.shape[:2]
    rows = resize_weights(jnp, box.top, box.height, height, image_shape[0])
    columns = resize_weights(jnp, box.left, box.width, width, image_shape[1])
    # In fewer bits, as accelerators multiply by default, views would differ from
    # the host's by more than a rounding.
    with jax.default_matmul_precision("highest"):
      crop = jnp.einsum("sh,hwc->swc", rows, image.astype(jnp.float32))
      return jnp.einsum("tw,swc->stc", columns, crop)

  together = max(_PIXELS_TOGETHER // math.prod(pixels.shape[1:3]), 1)
  if together >= len(pixels):
    return jax.vmap(lambda *example: resize_one(example))(pixels, boxes)
  return jax.lax.map(resize_one, (pixels, boxes), batch_size=together)


def resize_weights(
  xp: Any,
  start: chex.Numeric,
  length: chex.Numeric,
  inputs: int,
  outputs: int,
) -> Any:
  """Returns the matrix that resizes a part of a line of pixels.

  The weights are those of `tf.image.resize` with BICUBIC: Keys' kernel with
  a = -1/2 without antialiasing. Pixels outside of the part do not count, and the
  weights of the others are scaled up to a sum of 1.

  Args:
    xp: the module that computes, `numpy` or `jax.numpy`.
    start: first pixel of the part, a whole number.
    length: pixels of the part, a whole number.
    inputs: pixels of the line.
    outputs: pixels of the result.

  Returns:
    [outputs, inputs] float32.
  """
  scale = length / xp.float32(outputs)
  position = (xp.arange(outputs, dtype=xp.float32) + 0.5) * scale - 0.5
  nearest = xp.floor(position)
  fraction = xp.round((position - nearest) * _TABLE_SIZE) / _TABLE_SIZE
  pixel = xp.arange(inputs, dtype=xp.float32)[None] - start
  distance = xp.abs(pixel - nearest[:, None] - fraction[:, None])
  near = (1.5 * distance - 2.5) * distance**2 + 1
  far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
  weights = xp.where(distance <= 1, near, xp.where(distance < 2, far, 0.0))
  weights = xp.where((pixel >= 0) & (pixel < length), weights, 0.0)
  return weights / xp.sum(weights, axis=1, keepdims=True)
