"""Crops of images in memory, as `crops` and `eval_input` make them of records."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import device_crops, device_random, sampling
from byol_jax.data.images import Images
from byol_jax.data.source import CentreCrop, RandomCrop


def shuffled(seeds: Any, positions: np.ndarray, size: int) -> np.ndarray:
  """Returns the indices at positions of an endless stream of shuffled epochs."""
  epochs, places = (x.astype(np.uint32) for x in divmod(positions, size))
  return np.asarray(_shuffled(seeds, epochs, places, size))


def wide(positions: np.ndarray) -> device_random.Wide:
  """Returns positions in a stream as two halves."""
  return (
    jnp.asarray(positions >> 32, jnp.uint32),
    jnp.asarray(positions & 0xFFFFFFFF, jnp.uint32),
  )


def centres(images: Images, rows: np.ndarray, crop: CentreCrop) -> np.ndarray:
  """Returns the central regions of images, as `crops.centre_crop` does."""
  height, width = images.sizes[rows].astype(np.float32).T
  boxes = sampling.centre_box(
    np, height, width, crop.fraction, crop.image_shape
  )
  resized = _resize(images.pixels[rows], boxes, crop.image_shape)
  return np.clip(np.asarray(resized) / images.white, 0, 1)


def at_random(
  images: Images,
  rows: np.ndarray,
  positions: np.ndarray,
  crop: RandomCrop,
  seed: int,
) -> np.ndarray:
  """Returns random crops, flipped at random, as `eval_input` makes them."""
  u = np.asarray(_uniform((device_random.wide(seed), wide(positions)), 5))
  height, width = images.sizes[rows].astype(np.float32).T
  boxes = sampling.crop_boxes(
    np,
    height[:, None],
    width[:, None],
    u[:, None, :4],
    [crop.region],
    crop.image_shape,
  )
  boxes = sampling.Boxes(*(x[:, 0] for x in boxes))
  crops = np.asarray(_resize(images.pixels[rows], boxes, crop.image_shape))
  flipped = (u[:, 4] < crop.region.flip_prob)[:, None, None, None]
  crops = np.where(flipped, crops[:, :, ::-1], crops)
  return np.clip(crops / images.white, 0, 1)


# Compiled, since they are hundreds of small operations for each batch.
_resize = jax.jit(device_crops.resize, static_argnums=2)
_uniform = jax.jit(device_random.uniform, static_argnums=1)


@functools.partial(jax.jit, static_argnums=3)
def _shuffled(
  seeds: Any, epochs: jax.Array, places: jax.Array, size: int
) -> jax.Array:
  seeds_of_epochs = device_random.epoch_seeds(seeds, epochs)
  return device_random.shuffle(places, seeds_of_epochs, size)
