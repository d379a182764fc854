"""Applies sampled augmentation parameters to crops in TensorFlow, on the host.

`augment.device_ops` does the same in JAX. The code here is written for XLA on
CPUs. It works on planes, [H, W] of one channel, because these vectorise, and on
many crops per call, because each call has a cost.
"""

import functools
from collections.abc import Sequence

import tensorflow as tf

from byol_jax.augment import colours, extra_ops, spec
from byol_jax.augment.colours import Planes


def blur_taps(image_shape: Sequence[int], sigma: tf.Tensor) -> tf.Tensor:
  """Returns the taps of a Gaussian of `sigma` pixels, which sum to 1.

  Args:
    image_shape: height and width of the image, pixels; they decide where the
      Gaussian is cut off.
    sigma: scalar float32.
  """
  radius = spec.blur_radius(image_shape)
  taps = tf.exp(-(tf.range(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
  return taps / tf.reduce_sum(taps)


def blur(planes: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
  """Blurs planes [..., H, W] by a Gaussian of `sigma` pixels.

  Taps beyond the border are lost, so borders darken as in the reference. Planes
  with a side below 20 pixels do not change, see `spec.blur_radius`.
  """
  taps = blur_taps(planes.shape[-2:], sigma)
  return _blur_along(-2, _blur_along(-1, planes, taps), taps)


def _blur_along(axis: int, planes: tf.Tensor, taps: tf.Tensor) -> tf.Tensor:
  """Blurs along the last axis or the one before it, by sums of shifted planes."""
  size, radius = planes.shape[axis], taps.shape[0] // 2
  paddings = [[0, 0]] * planes.shape.rank
  paddings[axis] = [radius, radius]
  padded = tf.pad(planes, paddings)

  def shifted(i):
    if axis == -1:
      return padded[..., i : i + size]
    return padded[..., i : i + size, :]

  total = taps[radius] * shifted(radius)
  for i in range(radius):
    total += taps[i] * (shifted(i) + shifted(2 * radius - i))
  # The taps sum to 1 already. XLA would repeat the sums along one axis for every
  # tap of the other one, but it never repeats a division.
  return total / tf.reduce_sum(taps)


def _jitter(
  planes: Planes, params: spec.AugmentParams, names: tuple[str, ...]
) -> Planes:
  """Applies the colour operations in their sampled order, clipping each."""

  def operation(name, planes, amount):
    def means():
      return tuple(tf.reduce_mean(plane) for plane in planes)

    changed = colours.COLOUR_OPS[name](tf, planes, amount, means)
    return tuple(colours.clip(tf, plane) for plane in changed)

  def apply_nth(i, *planes):
    # For an index such as order[i] instead of tf.gather, XLA would compile the
    # program again for every order.
    chosen = tf.gather(params.order, i)
    amount = tf.gather(params.amounts, chosen)
    branches = [lambda n=name: operation(n, planes, amount) for name in names]
    return i + 1, *tf.switch_case(chosen, branches)

  return tf.while_loop(
    lambda i, *_: i < len(names),
    apply_nth,
    (0, *planes),
    maximum_iterations=len(names),
  )[1:]


def apply(
  crops: tf.Tensor, params: spec.AugmentParams, enabled: spec.EnabledOps
) -> tf.Tensor:
  """Returns views: crops with their augmentation parameters applied.

  Args:
    crops: [N, H, W, 3] float32 in about [0, 255], from `crops.random_crops`.
    params: with a leading axis of N.
    enabled: operations that `params` may ask for.

  Returns:
    [N, H, W, 3] float32 in [0, 1].
  """

  def augment(crop, params):
    if enabled.flip:
      crop = tf.where(params.flip, crop[:, ::-1], crop)
    planes = tuple(tf.unstack(tf.clip_by_value(crop / 255, 0.0, 1.0), axis=-1))
    if enabled.jitter:
      planes = tf.cond(
        params.jitter,
        lambda: _jitter(planes, params, enabled.jitter),
        lambda: planes,
      )
    if enabled.grayscale:
      planes = tf.cond(
        params.grayscale, lambda: colours.grayscale(planes), lambda: planes
      )
    image = tf.stack(planes)
    if enabled.blur:
      image = tf.cond(
        params.blur, lambda: blur(image, params.sigma), lambda: image
      )
    if enabled.solarize:
      image = tf.where(params.solarize, colours.solarize(tf, image), image)
    image = tf.transpose(image, [1, 2, 0])
    for i, name in enumerate(enabled.extra):
      operation = functools.partial(
        extra_ops.EXTRA_OPS[name], tf, image, params.extra_numbers[i]
      )
      image = tf.cond(params.extra[i], operation, lambda image=image: image)
    # The taps of the blur may sum to a rounding error above 1.
    return tf.clip_by_value(image, 0.0, 1.0)

  return tf.map_fn(
    lambda pair: augment(*pair),
    (crops, params),
    fn_output_signature=tf.float32,
  )
