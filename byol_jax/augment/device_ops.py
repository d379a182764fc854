"""Applies sampled augmentation parameters to crops in JAX, for accelerators.

`data.host_ops` does the same in TensorFlow. The operations are those of dm-pix,
which the reference uses, except for the blur: it is two products with a banded
matrix, which accelerators compute fast.
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import dm_pix
import jax
import jax.numpy as jnp

from byol_jax.augment import spec

# Each name in `spec.COLOUR_OPS`: a function of an image [S, S, 3] in [0, 1] and
# of an amount. Results are clipped to [0, 1] afterwards.
COLOUR_OPS: dict[str, Callable[..., chex.Array]] = {
  "brightness": dm_pix.adjust_brightness,
  "contrast": dm_pix.adjust_contrast,
  "saturation": dm_pix.adjust_saturation,
  "hue": dm_pix.adjust_hue,
}


def grayscale(image: chex.Array) -> chex.Array:
  """Returns the luminance in all three channels."""
  # dm-pix multiplies by a matrix, which accelerators would do in fewer bits.
  with jax.default_matmul_precision("highest"):
    return dm_pix.rgb_to_grayscale(image, keep_dims=True)


def solarize(image: chex.Array) -> chex.Array:
  """Inverts every value of at least one half."""
  return dm_pix.solarize(image, 0.5)


def blur(image: chex.Array, sigma: chex.Numeric) -> chex.Array:
  """Blurs a square image [S, S, C] by a Gaussian of `sigma` pixels.

  Taps beyond the border are lost, so borders darken as in the reference.
  """
  size = image.shape[0]
  radius = spec.blur_radius(size)
  pixels = jnp.arange(size)
  offset = pixels[:, None] - pixels[None, :]
  density = jnp.exp(-(offset.astype(jnp.float32) ** 2) / (2 * sigma**2))
  steps = jnp.arange(-radius, radius + 1.0)
  total = jnp.sum(jnp.exp(-(steps**2) / (2 * sigma**2)))
  kernel = jnp.where(jnp.abs(offset) <= radius, density / total, 0.0)
  # Accelerators would multiply in fewer bits than the images have.
  with jax.default_matmul_precision("highest"):
    return jnp.einsum("ij,jkc,lk->ilc", kernel, image, kernel)


def _jitter(
  image: chex.Array, params: spec.AugmentParams, names: tuple[str, ...]
) -> chex.Array:
  """Applies the colour operations in their sampled order, clipping each."""
  branches = [COLOUR_OPS[name] for name in names]

  def apply_nth(i, image):
    chosen = params.order[i]
    changed = jax.lax.switch(chosen, branches, image, params.amounts[chosen])
    return jnp.clip(changed, 0.0, 1.0)

  return jax.lax.fori_loop(0, len(names), apply_nth, image)


def _apply_to_one(
  crop: chex.Array, params: spec.AugmentParams, enabled: spec.EnabledOps
) -> chex.Array:
  image = jnp.clip(crop.astype(jnp.float32) / 255, 0.0, 1.0)
  image = jnp.broadcast_to(image, (*image.shape[:2], 3))
  if enabled.flip:
    image = jnp.where(params.flip, image[:, ::-1], image)
  if enabled.jitter:
    changed = _jitter(image, params, enabled.jitter)
    image = jnp.where(params.jitter, changed, image)
  if enabled.grayscale:
    image = jnp.where(params.grayscale, grayscale(image), image)
  if enabled.blur:
    image = jnp.where(params.blur, blur(image, params.sigma), image)
  if enabled.solarize:
    image = jnp.where(params.solarize, solarize(image), image)
  # The taps of the blur may sum to a rounding error above 1.
  return jnp.clip(image, 0.0, 1.0)


def apply(
  crops: chex.Array, params: spec.AugmentParams, enabled: spec.EnabledOps
) -> chex.Array:
  """Returns views: crops with their augmentation parameters applied.

  Args:
    crops: [N, S, S, 1 or 3] uint8, or float32 in about [0, 255].
    params: with a leading axis of N.
    enabled: operations that `params` may ask for.

  Returns:
    [N, S, S, 3] float32 in [0, 1].
  """
  return jax.vmap(lambda crop, one: _apply_to_one(crop, one, enabled))(
    crops, params
  )


def apply_to_batch(
  views: spec.Views, batch: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns a batch of finished views, whatever their placement.

  Args:
    views: specification that the batch was made by.
    batch: from `data.train_input.train_batches`. With placement host it already
      holds views; with placement device it holds "view1" and "view2" as crops,
      and their augmentation parameters "params1" and "params2".

  Returns:
    "view1" and "view2", [B, S, S, channels] float32 in [0, 1], and "label".
  """
  if views.placement == "host":
    return dict(batch)
  enabled = spec.enabled_ops(views.view1, views.view2)

  def view(crops, params):
    return apply(crops, params, enabled)[..., : views.channels]

  return {
    "view1": view(batch["view1"], batch["params1"]),
    "view2": view(batch["view2"], batch["params2"]),
    "label": batch["label"],
  }
