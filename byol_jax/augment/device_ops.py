"""Applies sampled augmentation parameters to crops in JAX, for accelerators.

`data.host_ops` does the same in TensorFlow. All images of a batch are computed
alike, so an operation that an image does not take costs as much as one that it
takes. Accelerators wait for memory more than they compute, so the code is written
to be fused: colours are changed in one pass over an image that writes nothing but
the means for contrast, and one that writes the result. The blur is two products
with a banded matrix.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from byol_jax.augment import colours, extra_ops, spec
from byol_jax.augment.colours import Planes


def blur(image: chex.Array, sigma: chex.Numeric) -> chex.Array:
  """Blurs an image [H, W, C] by a Gaussian of `sigma` pixels.

  Taps beyond the border are lost, so borders darken as in the reference.
  """
  radius = spec.blur_radius(image.shape[:2])
  steps = jnp.arange(-radius, radius + 1.0)
  total = jnp.sum(jnp.exp(-(steps**2) / (2 * sigma**2)))

  def kernel(size: int) -> chex.Array:
    pixels = jnp.arange(size)
    offset = pixels[:, None] - pixels[None, :]
    density = jnp.exp(-(offset.astype(jnp.float32) ** 2) / (2 * sigma**2))
    return jnp.where(jnp.abs(offset) <= radius, density / total, 0.0)

  rows, columns = map(kernel, image.shape[:2])
  # Accelerators would multiply in fewer bits than the images have.
  with jax.default_matmul_precision("highest"):
    return jnp.einsum("ij,jkc,lk->ilc", rows, image, columns)


def _jitter(
  planes: Planes, params: spec.AugmentParams, names: tuple[str, ...]
) -> Planes:
  """Applies the colour operations in their sampled order, clipping each."""

  def run(
    planes: Planes, used: Sequence[str], count: Any, means: Any
  ) -> Planes:
    """Applies the first `count` operations, which must be among those used."""
    for i in range(len(names)):
      chosen = params.order[i]
      amount = params.amounts[chosen]
      result = planes
      for name in used:
        new = colours.COLOUR_OPS[name](jnp, planes, amount, lambda: means)
        new = jax.tree.map(functools.partial(colours.clip, jnp), new)
        is_here = (chosen == names.index(name)) & (i < count)
        result = _choose(is_here, new, result)
      planes = result
    return planes

  means = None
  if colours.TAKES_MEANS in names:
    place = jnp.argmax(params.order == names.index(colours.TAKES_MEANS))
    others = [name for name in names if name != colours.TAKES_MEANS]
    means = jax.tree.map(jnp.mean, run(planes, others, place, None))
  return run(planes, names, len(names), means)


def _apply_to_one(
  crop: chex.Array, params: spec.AugmentParams, enabled: spec.EnabledOps
) -> chex.Array:
  image = crop.astype(jnp.float32) / spec.white(crop.dtype)
  image = colours.clip(jnp, image)
  if image.shape[-1] == 1:
    image = jnp.broadcast_to(image, (*image.shape[:2], 3))
  if enabled.flip:
    image = jnp.where(params.flip, image[:, ::-1], image)
  if enabled.jitter or enabled.grayscale:
    planes = tuple(image[..., i] for i in range(image.shape[-1]))
    if enabled.jitter:
      changed = _jitter(planes, params, enabled.jitter)
      planes = _choose(params.jitter, changed, planes)
    if enabled.grayscale:
      planes = _choose(params.grayscale, colours.grayscale(planes), planes)
    image = jnp.stack(planes, axis=-1)
  if enabled.blur:
    image = jnp.where(params.blur, blur(image, params.sigma), image)
  if enabled.solarize:
    solarized = colours.solarize(jnp, image)
    image = jnp.where(params.solarize, solarized, image)
  for i, name in enumerate(enabled.extra):
    # Accelerators would multiply in fewer bits than the images have.
    with jax.default_matmul_precision("highest"):
      changed = extra_ops.EXTRA_OPS[name](jnp, image, params.extra_numbers[i])
    image = jnp.where(params.extra[i], changed, image)
  # The taps of the blur may sum to a rounding error above 1.
  return colours.clip(jnp, image)


def _choose(condition: chex.Array, new: Planes, old: Planes) -> Planes:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def apply(
  crops: chex.Array, params: spec.AugmentParams, enabled: spec.EnabledOps
) -> chex.Array:
  """Returns views: crops with their augmentation parameters applied.

  Args:
    crops: [N, H, W, C] uint8, uint16, or float32 in about [0, 255].
    params: with a leading axis of N.
    enabled: operations that `params` may ask for.

  Returns:
    [N, H, W, C] float32 in [0, 1], of grey crops [N, H, W, 3].
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
    "view1" and "view2", [B, H, W, channels] float32 in [0, 1], and "label".
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
