"""Views, operations and crops of both placements, for several test modules."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from byol_jax import config
from byol_jax.augment import colours, device_ops, sampling, spec
from byol_jax.data import crops, host_ops
from tests.golden_data import Golden

GOLDEN = Golden("augment_ops")

both_placements = pytest.mark.parametrize("placement", ["host", "device"])


def plain_view(**changes) -> spec.View:
  """A view that shows the whole image as it is, except for the changes."""
  view = spec.View(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip_prob=0.0,
    jitter_prob=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    grayscale_prob=0.0,
    blur_prob=0.0,
    blur_sigma=(0.1, 2.0),
    solarize_prob=0.0,
    vertical_flip_prob=0.0,
    rotate90_prob=0.0,
  )
  return dataclasses.replace(view, **changes)


def paper_view(name: str) -> spec.View:
  return spec.View(**config.default_config().augment[name])


def _on_planes(placement, operation, image, *args) -> np.ndarray:
  """The result of an operation on the planes of three channels."""
  xp = {"host": tf, "device": jnp}[placement]
  planes = tuple(xp.stack(image[..., i]) for i in range(3))
  return np.stack(operation(xp, planes, *args), axis=-1)


def change_colour(placement, name, image, amount) -> np.ndarray:
  means = np.mean(image, axis=(0, 1), dtype=np.float64).astype(np.float32)
  operation = colours.COLOUR_OPS[name]
  return _on_planes(placement, operation, image, amount, lambda: means)


def grayscale(placement, image) -> np.ndarray:
  return _on_planes(placement, lambda xp, x: colours.grayscale(x), image)


def solarize(placement, image) -> np.ndarray:
  return _on_planes(
    placement, lambda xp, x: [colours.solarize(xp, plane) for plane in x], image
  )


def on_each_plane(operation, image, *args) -> np.ndarray:
  """The result of an operation that takes one plane at a time."""
  planes = [operation(plane, *args) for plane in tf.unstack(image, axis=-1)]
  return np.stack(planes, axis=-1)


def blur(placement, image, sigma) -> np.ndarray:
  if placement == "host":
    return on_each_plane(host_ops.blur, image, sigma)
  return np.asarray(device_ops.blur(image, sigma))


@functools.cache
def applier(placement, enabled, jitted=True):
  """`apply` of a placement, from and to NumPy arrays."""
  module = host_ops if placement == "host" else device_ops

  def function(crops, params):
    return module.apply(crops, params, enabled)

  if jitted and placement == "host":
    function = tf.function(function, jit_compile=True)
  elif jitted:
    function = jax.jit(function)
  return lambda crops, params: np.asarray(
    function(
      np.asarray(crops),
      jax.tree.map(np.asarray, params),
    )
  )


def two_crops(image, view1, view2, size, seed):
  """Crops of two views of an image, and the random numbers of both."""
  return crops.two_random_crops(
    image, spec.Views(view1, view2, (size, size)), seed
  )


def crops_and_params(image, view, size, count, enabled=None):
  """Crops of an image for the seeds (0, 0), (0, 1), ..., with parameters."""
  image = tf.constant(image)
  dataset = tf.data.Dataset.range(count).map(
    lambda i: two_crops(image, view, view, size, tf.stack([0, i])),
    tf.data.AUTOTUNE,
  )
  images, _, numbers, _ = next(dataset.batch(count).as_numpy_iterator())
  enabled = enabled or spec.enabled_ops(view)
  return images, sampling.augment_params(tf, numbers, view, enabled)


def random_views(placement, image, view, size, count) -> np.ndarray:
  """Views of one image for the seeds (0, 0), (0, 1), ..."""
  apply = applier(placement, spec.enabled_ops(view))
  return apply(*crops_and_params(image, view, size, count))


def params_of(count, **fields) -> spec.AugmentParams:
  """Parameters of `count` crops that change nothing except for the fields."""
  params = spec.AugmentParams(
    flip=False,
    jitter=False,
    order=(),
    amounts=(),
    grayscale=False,
    blur=False,
    sigma=np.float32(1),
    solarize=False,
  )._replace(**fields)
  return jax.tree.map(lambda field: np.stack([field] * count), params)


def graph_ops(function, *specs) -> list[str]:
  """The types of all nodes of a function's TensorFlow graph."""
  concrete = tf.function(function).get_concrete_function(*specs)
  graph = concrete.graph.as_graph_def()
  nodes = [*graph.node]
  nodes += [node for item in graph.library.function for node in item.node_def]
  return [node.op for node in nodes]


def noise(height, width, channels=3) -> np.ndarray:
  rng = np.random.RandomState(0)
  return rng.randint(0, 256, (height, width, channels), np.uint8)
