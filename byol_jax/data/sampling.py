"""Samples the augmentation parameters of views from seeded random numbers."""

import tensorflow as tf

from byol_jax.augment import spec

_OFFSETS = {name: i for i, name in enumerate(spec.RANDOM_NUMBERS)}


def random_numbers(seed: tf.Tensor) -> tf.Tensor:
  """Returns all random numbers of the two views of an example, from one draw.

  Args:
    seed: [2] int64, the run's seed and the example's position in the stream.

  Returns:
    [2, len(RANDOM_NUMBERS)] float32 in [0, 1): one row per view.
  """
  return tf.random.stateless_uniform([2, len(spec.RANDOM_NUMBERS)], seed)


def crop_numbers(numbers: tf.Tensor) -> tf.Tensor:
  """Returns the random numbers [..., 4] of rows that decide the crop."""
  return numbers[..., : len(spec.CROP_NUMBERS)]


def between(u: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
  """Maps random numbers from [0, 1) into [low, high)."""
  return low + u * (high - low)


def sample_params(
  numbers: tf.Tensor, view: spec.View, enabled: spec.EnabledOps
) -> spec.AugmentParams:
  """Returns the augmentation parameters that random numbers stand for.

  Args:
    numbers: [..., len(RANDOM_NUMBERS)] in [0, 1), from `random_numbers`.
    view: probability and strength of every operation.
    enabled: operations that the parameters are applied with. `order` and
      `amounts` are indexed by its colour operations.

  Returns:
    Parameters with the leading axes of `numbers`.
  """

  def number(name):
    return numbers[..., _OFFSETS[name]]

  occurs = {
    name: number(name) < getattr(view, f"{name}_prob") for name in spec.OPS
  }
  amounts = [
    spec.COLOUR_OPS[name].neutral
    + between(
      number(f"{name} amount"), -getattr(view, name), getattr(view, name)
    )
    for name in enabled.jitter
  ]
  count, first = len(enabled.jitter), _OFFSETS["order 0"]
  order = numbers[..., first : first + count]
  return spec.AugmentParams(
    order=tf.argsort(order),
    amounts=tf.stack(amounts, axis=-1) if count else order,
    sigma=between(number("blur sigma"), *view.blur_sigma),
    **occurs,
  )
