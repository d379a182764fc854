"""What `augment.finish` does to crops, in JAX: for accelerators.

The operations are those of dm-pix, which were the reference's own, but for the
blur, which is two products with a banded matrix here as well.
"""

import chex
import dm_pix
import jax
import jax.numpy as jnp

from byol_jax.data import host_ops

# Field of `augment.View`: the operation on [S, S, 3] in [0, 1].
JITTER = {
  "brightness": dm_pix.adjust_brightness,
  "contrast": dm_pix.adjust_contrast,
  "saturation": dm_pix.adjust_saturation,
  "hue": dm_pix.adjust_hue,
}


def grayscale(image: chex.Array) -> chex.Array:
  """Returns the luminance in all three channels."""
  with jax.default_matmul_precision("highest"):  # It is a product there.
    return dm_pix.rgb_to_grayscale(image, keep_dims=True)


def solarize(image: chex.Array) -> chex.Array:
  """Inverts every value of at least one half."""
  return dm_pix.solarize(image, 0.5)


def blur(image: chex.Array, sigma: chex.Numeric) -> chex.Array:
  """Blurs a square image; see `augment.blur`."""
  size = image.shape[0]
  radius = host_ops.blur_radius(size)
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
  image: chex.Array, recipe: host_ops.Recipe, names: tuple[str, ...]
) -> chex.Array:
  """Does the colour operations in the recipe's order, clipping after each."""
  branches = [JITTER[name] for name in names]

  def one(i, image):
    chosen = recipe.order[i]
    changed = jax.lax.switch(chosen, branches, image, recipe.amounts[chosen])
    return jnp.clip(changed, 0.0, 1.0)

  return jax.lax.fori_loop(0, len(names), one, image)


def _finish_one(
  crop: chex.Array, recipe: host_ops.Recipe, operations: host_ops.Possible
) -> chex.Array:
  image = jnp.clip(crop.astype(jnp.float32) / 255, 0.0, 1.0)
  image = jnp.broadcast_to(image, (*image.shape[:2], 3))
  if operations.flip:
    image = jnp.where(recipe.flip, image[:, ::-1], image)
  if operations.jitter:
    changed = _jitter(image, recipe, operations.jitter)
    image = jnp.where(recipe.jitter, changed, image)
  if operations.grayscale:
    image = jnp.where(recipe.grayscale, grayscale(image), image)
  if operations.blur:
    image = jnp.where(recipe.blur, blur(image, recipe.sigma), image)
  if operations.solarize:
    image = jnp.where(recipe.solarize, solarize(image), image)
  # Blurring weights may sum to a rounding error above 1.
  return jnp.clip(image, 0.0, 1.0)


def finish(
  crops: chex.Array, recipes: host_ops.Recipe, operations: host_ops.Possible
) -> chex.Array:
  """Does to each crop what its recipe says.

  Args:
    crops: [N, S, S, 1 or 3] uint8, or float32 as `augment.crops` returns.
    recipes: with a leading axis of N.
    operations: those that recipes may ask for.

  Returns:
    [N, S, S, 3] float32 in [0, 1].
  """
  return jax.vmap(lambda crop, recipe: _finish_one(crop, recipe, operations))(
    crops, recipes
  )


def finish_views(views, batch):
  """A batch whose views are finished, on the device if that is their place."""
  if views.placement == "host":
    return dict(batch)
  enabled = host_ops.possible(views.view1, views.view2)

  def one(crops, recipes):
    return finish(crops, recipes, enabled)[..., : views.channels]

  return {
    "view1": one(batch["view1"], batch["recipe1"]),
    "view2": one(batch["view2"], batch["recipe2"]),
    "label": batch["label"],
  }
