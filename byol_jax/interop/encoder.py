"""A frozen encoder as functions of images, in NumPy and in JAX programs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import errors
from byol_jax.models import networks
from byol_jax.runtime import devices

Variables = tuple[hk.Params, hk.State]

# Our choice: a third of a step between bytes, for rounding in another program.
_TOLERANCE = 1e-3


class Encoder(NamedTuple):
  """A frozen encoder and the images that it expects.

  `encode` and `feature_map` take images, [B, S, S, C], as floats in [0, 1] or as
  uint8, which they divide by 255. NumPy arrays, and what `numpy.asarray` makes one
  of, are split over the local devices and give NumPy arrays. JAX arrays give JAX
  arrays, also under `jit`, `vmap` and reverse-mode differentiation. Images of any
  other shape, type or range raise `UserError`, a `ValueError`; the range of images
  that are traced is not known.

  Attributes:
    encode: maps images to features, [B, D] float32.
    image_size: S.
    channels: C.
    step: updates that it was trained for.
    feature_map: maps images to what is pooled into features, [B, h, w, F] float32.
    variables: its parameters and batch-norm statistics, as Haiku names them.
    network: the pure functions of the encoder, see `networks.make_encoder`.
  """

  encode: Callable[[Any], Any]
  image_size: int
  channels: int
  step: int
  feature_map: Callable[[Any], Any]
  variables: Variables
  network: hk.TransformedWithState

  def apply(self, variables: Variables, images: Any) -> networks.Encoded:
    """Returns features and feature maps, as a pure function of the variables.

    Args:
      variables: of the structure of `variables`, to which it can be
        differentiated (the parameters) by reverse mode.
      images: as for `encode`, but their range is never checked.

    Raises:
      UserError: if the images have another shape or type.
    """
    images = _checked(images, self.image_size, self.channels)
    return _apply(self.network, variables, images)


def make_encoder(
  network: hk.TransformedWithState,
  variables: Variables,
  *,
  image_size: int,
  channels: int,
  step: int,
) -> Encoder:
  """Returns an encoder; the arguments are as in `Encoder`."""
  variables = jax.tree.map(jnp.asarray, variables)

  def function_of(output: str) -> Callable[[Any], Any]:
    def apply(variables: Variables, images: jax.Array) -> jax.Array:
      return getattr(_apply(network, variables, images), output)

    compiled = jax.jit(apply)
    on_all_devices = devices.pmap_examples(apply)

    def run(images: Any) -> Any:
      images = _checked(images, image_size, channels)
      if not isinstance(images, jax.core.Tracer):
        _check_range(images)
      if isinstance(images, jax.Array):
        return compiled(variables, images)
      if not len(images):
        return np.asarray(compiled(variables, images))
      return on_all_devices(variables, images)

    return run

  return Encoder(
    encode=function_of("embedding"),
    image_size=image_size,
    channels=channels,
    step=step,
    feature_map=function_of("feature_map"),
    variables=variables,
    network=network,
  )


def _apply(
  network: hk.TransformedWithState, variables: Variables, images: jax.Array
) -> networks.Encoded:
  """Applies the encoder to images that `_checked` returned."""
  x = jnp.asarray(images, jnp.float32)
  if images.dtype == jnp.uint8:
    x = x / 255
  if not len(images):  # Some layers cannot compute on no image.
    x = jnp.zeros((1, *x.shape[1:]), x.dtype)
  encoded, _ = network.apply(*variables, x, is_training=False)
  return jax.tree.map(lambda y: y[: len(images)], encoded)


def _checked(images: Any, side: int, channels: int) -> Any:
  """Returns images as a JAX or NumPy array of the right shape and type."""
  if not isinstance(images, jax.Array):
    try:
      images = np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as error:
      raise errors.UserError(
        f"The images cannot be read as one array: {str(error).splitlines()[0]}"
      ) from error
  if images.shape[1:] != (side, side, channels):
    raise errors.UserError(
      f"The images have the shape {images.shape}; this encoder takes (number,"
      f" {side}, {side}, {channels}){_remedy(images.shape, side, channels)}."
    )
  if images.dtype == np.uint8:
    return images
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise errors.UserError(
      f"The images are of type {images.dtype}; give floats in [0, 1], or uint8,"
      " which is divided by 255."
    )
  if isinstance(images, np.ndarray):
    with np.errstate(over="ignore"):  # Infinity is out of range, too.
      return images.astype(np.float32, copy=False)
  return images


def _remedy(shape: tuple[int, ...], side: int, channels: int) -> str:
  """Says what to do about images of a wrong shape, if that is clear."""
  if shape == (side, side, channels):
    return "; give one image as images[None]"
  if shape[1:] == (channels, side, side):
    return "; the channels are first: give images.transpose(0, 2, 3, 1)"
  if len(shape) == 4 and shape[3] == channels:
    return (
      f"; resize them from {shape[1]} x {shape[2]} to {side} x {side} pixels"
    )
  return ""


def _check_range(images: Any) -> None:
  """Raises `UserError` unless all values lie in [0, 1]."""
  if images.dtype == np.uint8 or not images.size:
    return
  low, high = float(images.min()), float(images.max())
  # Written so that it is false for NaN.
  if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
    raise errors.UserError(
      f"The images hold values from {low:g} to {high:g}; give floats in [0, 1]"
      " that are not normalised by mean and std, which the encoder does itself,"
      " or uint8, which is divided by 255."
    )
