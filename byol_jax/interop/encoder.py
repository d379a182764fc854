"""A frozen encoder as functions of images, in NumPy and in JAX programs."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import errors
from byol_jax.augment import spec
from byol_jax.interop import images as images_lib
from byol_jax.interop.encoder_about import About
from byol_jax.runtime import devices

Variables = tuple[hk.Params, hk.State]

# Images of a NumPy array that a device computes at once, so that any number of them
# fits in its memory. Our choice: as evaluations do by default.
_IMAGES_TOGETHER = 256


class Encoder(NamedTuple):
  """A frozen encoder and the images that it expects.

  `encode` and `feature_map` take images, [B, H, W, C], or one image, [H, W, C], as
  floats in [0, 1], or as uint8 or uint16, which they divide by 255 or 65,535. An
  encoder of colours takes grey images, too, [B, H, W, 1]: all its channels get their
  values. NumPy arrays,
  and what `numpy.asarray` makes one of, are split into batches over the local devices
  and give NumPy arrays. JAX arrays give JAX arrays, also under `jit`, `vmap` and reverse-mode
  differentiation. Images of any other shape, type or range raise `UserError`, a
  `ValueError`; the range of images that are traced is not known.

  Attributes:
    encode: maps images to features, [B, D] float32, and one image to [D].
    image_size: H.
    channels: C.
    step: updates that it was trained for.
    feature_map: `feature_map(images, stage="final")` maps images to the feature map
      of a stage, [B, h, w, F] float32, and one image to [h, w, F]. `encode` pools the
      final stage.
    apply: `apply(params, images, stage=None)` is a pure function of parameters like
      `params`, to which it can be differentiated by reverse mode, and of images,
      whose range it does not check. It returns JAX arrays: what `encode` returns, or
      the feature map of a stage. The statistics of batch norm are those of
      `variables`.
    variables: its parameters and batch-norm statistics, as Haiku names them.
    network: the pure functions of the encoder, see `networks.make_encoder`.
    form: the images that it was trained on.
    about: its classes and its training.
  """

  encode: Callable[[Any], Any]
  image_size: int
  channels: int
  step: int
  feature_map: Callable[..., Any]
  apply: Callable[..., jax.Array]
  variables: Variables
  network: hk.TransformedWithState
  form: images_lib.Form
  about: About

  @property
  def image_width(self) -> int:
    """W."""
    return self.form.image_shape[1]

  @property
  def params(self) -> hk.Params:
    """Its parameters, without the statistics of batch norm."""
    return self.variables[0]

  @property
  def class_names(self) -> tuple[str, ...]:
    """The classes of the images that it was trained on; () if unknown."""
    return self.about.class_names

  @property
  def training(self) -> Mapping[str, Any]:
    """The settings that it was trained with, by key; {} if unknown."""
    return self.about.training

  def prepare(self, images: Any) -> np.ndarray:
    """Returns images of any size as `encode` takes them; see `images.prepared`."""
    return images_lib.prepared(images, self.form)


def make_encoder(
  network: hk.TransformedWithState,
  variables: Variables,
  form: images_lib.Form,
  *,
  step: int,
  about: About,
) -> Encoder:
  """Returns an encoder; the arguments are as in `Encoder`."""
  variables = jax.tree.map(jnp.asarray, variables)
  Stage = str | None

  @functools.cache  # One compiled program for each stage.
  def functions_of(stage: Stage) -> tuple[Callable, Callable]:
    def output(variables: Variables, images: jax.Array) -> jax.Array:
      return _apply(network, variables, images, form.channels, stage)

    return jax.jit(output), devices.pmap_examples(output)

  def run(images: Any, stage: Stage = None) -> Any:
    images, is_one = images_lib.checked(images, form)
    if not isinstance(images, jax.core.Tracer):
      images_lib.check_range(images)
    compiled, on_all_devices = functions_of(stage)
    if isinstance(images, jax.Array):
      found = compiled(variables, images)
    elif not len(images):
      found = np.asarray(compiled(variables, images))
    else:
      size = _IMAGES_TOGETHER * jax.local_device_count()
      found = np.concatenate(
        [
          on_all_devices(variables, images[i : i + size])
          for i in range(0, len(images), size)
        ]
      )
    return found[0] if is_one else found

  def apply(params: hk.Params, images: Any, stage: Stage = None) -> jax.Array:
    images, is_one = images_lib.checked(images, form)
    found = functions_of(stage)[0]((params, variables[1]), images)
    return found[0] if is_one else found

  return Encoder(
    encode=lambda images: run(images),
    image_size=form.image_shape[0],
    channels=form.channels,
    step=step,
    feature_map=lambda images, stage="final": run(images, stage),
    apply=apply,
    variables=variables,
    network=network,
    form=form,
    about=about,
  )


def _apply(
  network: hk.TransformedWithState,
  variables: Variables,
  images: jax.Array,
  channels: int,
  stage: str | None,
) -> jax.Array:
  """Applies the encoder to images that `images.checked` returned."""
  x = jnp.asarray(images, jnp.float32)
  if jnp.issubdtype(images.dtype, jnp.integer):
    x = x / spec.white(images.dtype)
  x = jnp.broadcast_to(x, (*x.shape[:-1], channels))
  if not len(images):  # Some layers cannot compute on no image.
    x = jnp.zeros((1, *x.shape[1:]), x.dtype)
  encoded, _ = network.apply(*variables, x, is_training=False)
  if stage is None:
    return encoded.embedding[: len(images)]
  if stage not in encoded.stages:
    raise errors.unknown_name("stage", stage, encoded.stages)
  return encoded.stages[stage][: len(images)]
