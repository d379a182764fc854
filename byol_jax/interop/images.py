"""The images that a frozen encoder takes: checked, or made to fit it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import errors
from byol_jax.augment import device_crops, sampling, spec

# Our choice: a third of a step between bytes, for rounding in another program.
_TOLERANCE = 1e-3
_WHOLE = "uint8, which is divided by 255, or uint16, which is divided by 65,535"
# Of red, green and blue in grey: libjpeg's, as in evaluations.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


class Form(NamedTuple):
  """The images that an encoder was trained on.

  Attributes:
    image_shape: height H and width W of its images, pixels.
    channels: of its images, C: 3, 1 for grey, or those of other images.
    eval_crop: sides of the central region that evaluations show to it, over those of
      the largest one of its aspect.
  """

  image_shape: tuple[int, int]
  channels: int
  eval_crop: float

  @property
  def takes(self) -> tuple[int, ...]:
    """The channels of images that `prepared` takes."""
    return (1, 3) if self.channels in (1, 3) else (self.channels,)


def checked(images: Any, form: Form) -> tuple[Any, bool]:
  """Returns images as a batch of the right shape and type.

  Args:
    images: [B, H, W, C] or one image, [H, W, C], with as many channels as the
      encoder, or one where it takes colours. One grey image may be [H, W].
    form: of the encoder.

  Returns:
    The batch as a JAX or NumPy array, and whether it was one image.

  Raises:
    UserError: if they have another shape or type.
  """
  images = _array(images)
  shape, (height, width) = images.shape, form.image_shape
  batch, is_one = _batch(images)
  if batch is None or batch.shape[1:] not in (
    (height, width, form.channels),
    (height, width, form.takes[0]),
  ):
    raise errors.UserError(
      f"The images have the shape {shape}; this encoder takes (number, {height},"
      f" {width}, {form.channels}){_remedy(shape, form)}."
    )
  return batch, is_one


def _array(images: Any) -> Any:
  """Returns images as a JAX or NumPy array of a type that can be images."""
  if not isinstance(images, jax.Array):
    try:
      images = np.asarray(images)
    except (TypeError, ValueError, RuntimeError) as error:
      raise errors.UserError(
        f"The images cannot be read as one array: {str(error).splitlines()[0]}"
      ) from error
  if _is_whole(images):
    return images
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise errors.UserError(
      f"The images are of type {images.dtype}; give floats in [0, 1], or"
      f" {_WHOLE}."
    )
  if isinstance(images, np.ndarray):
    with np.errstate(over="ignore"):  # Infinity is out of range, too.
      return images.astype(np.float32, copy=False)
  return images


def _is_whole(images: Any) -> bool:
  """Returns whether the values are whole numbers, which are divided by white."""
  return images.dtype in (np.uint8, np.uint16)


def _batch(images: Any) -> tuple[Any, bool]:
  """Returns [B, H, W, C] and whether it was one image; None for another rank."""
  if images.ndim == 2:
    images = images[..., None]
  if images.ndim == 3:
    return images[None], True
  return (images if images.ndim == 4 else None), False


def _remedy(shape: tuple[int, ...], form: Form) -> str:
  """Says what to do about images of a wrong shape, if that is clear."""
  if shape[-3:] == (form.channels, *form.image_shape):
    axes = "1, 2, 0" if len(shape) == 3 else "0, 2, 3, 1"
    return f"; the channels are first: give images.transpose({axes})"
  if len(shape) == 3 and shape[1:] == form.image_shape:
    return "; give many grey images as images[..., None]"
  if len(shape) in (3, 4) and shape[-1] in form.takes:
    return "; give encoder.prepare(images), which crops and resizes them as evaluations do"
  if len(shape) in (3, 4) and shape[-1] in (2, 4) and 3 in form.takes:
    return "; leave their transparency out, such as by Pillow's convert('RGB')"
  return ""


def check_range(images: Any) -> None:
  """Raises `UserError` unless all values lie in [0, 1], or are whole.

  Words of 16 bits that hold nothing but bytes are a mistake, and almost black.
  """
  if images.dtype == np.uint8 or not images.size:
    return
  if images.dtype == np.uint16:
    if 0 < int(images.max()) <= spec.white(np.uint8):
      raise errors.UserError(
        "The images are of type uint16 and hold no value above 255; give bytes as"
        " uint8, or floats in [0, 1]."
      )
    return
  low, high = float(images.min()), float(images.max())
  # Written so that it is false for NaN.
  if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
    raise errors.UserError(
      f"The images hold values from {low:g} to {high:g}; give floats in [0, 1]"
      " that are not normalised by mean and std, which the encoder does itself,"
      f" or {_WHOLE}."
    )


def prepared(images: Any, form: Form) -> np.ndarray:
  """Returns images of any size as evaluations show them to an encoder.

  The central region of each is resized to H x W pixels as `data.crops.centre_crop`
  does. Colours become grey for a grey encoder, and grey images stay grey.

  Args:
    images: one image, [h, w, c] or [h, w], or a batch of one size, [B, h, w, c],
      where c is 1 or 3, or that of an encoder of other channels; as uint8, uint16 or
      floats in [0, 1].
    form: of the encoder.

  Returns:
    One image, [H, W, c], or a batch, [B, H, W, c], float32 in [0, 1], where c is 1
    for a grey encoder and otherwise that of the images.

  Raises:
    UserError: if the images are of another kind, or have no pixels.
  """
  images = _array(images)
  batch, is_one = _batch(images)
  if batch is None or batch.shape[-1] not in form.takes or 0 in batch.shape[1:]:
    channels = " or ".join(map(str, form.takes))
    raise errors.UserError(
      f"The images have the shape {images.shape}; give one image, (height, width,"
      f" {channels}), or a batch of one size, (number, height, width, {channels})."
    )
  check_range(batch)
  is_whole = _is_whole(batch)
  white = np.float32(spec.white(batch.dtype)) if is_whole else np.float32(1)
  batch = np.asarray(batch)
  if form.channels == 1 and batch.shape[-1] == 3:
    batch = (batch @ _LUMINANCE)[..., None]
    batch = np.round(batch) if is_whole else batch
  crops = _centre_crops(batch, form)
  crops = np.clip(crops / white, 0, 1)
  return crops[0] if is_one else crops


def _centre_crops(images: np.ndarray, form: Form) -> np.ndarray:
  """Returns central regions, resized: [B, h, w, C] to [B, H, W, C] float32."""
  height, width = images.shape[1:3]
  box = sampling.centre_box(
    np, np.float32(height), np.float32(width), form.eval_crop, form.image_shape
  )

  def weights_of(start: Any, length: Any, inputs: int, outputs: int) -> Any:
    weights = device_crops.resize_weights(np, start, length, inputs, outputs)
    # Four pixels of a line make one of the result, so of a photo most are not read.
    used = np.flatnonzero(weights.any(axis=0))
    return weights[:, used], used

  rows, used_rows = weights_of(box.top, box.height, height, form.image_shape[0])
  columns, used_columns = weights_of(
    box.left, box.width, width, form.image_shape[1]
  )
  pixels = images[:, used_rows][:, :, used_columns].astype(np.float32)
  return np.einsum("sh,bhwc,tw->bstc", rows, pixels, columns, optimize=True)
