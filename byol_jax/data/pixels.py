"""Decodes images to the pixels that people see.

docs/data.md lists what happens to which kind of image.
"""

import functools
import io
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf
from PIL import ExifTags, ImageCms

# The feature of a record that holds what `turn_upright` applies. Only data sets
# in which some image is to be turned have it.
ORIENTATION = "exif_orientation"
# TensorFlow reads these formats as Pillow does. It reads indices into a palette
# of a BMP as shades of grey.
_TRAINING_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP")
# Photos, which would take several times the space as PNG.
_PHOTO_FORMATS = ("JPEG", "MPO", "HEIF")
# Our choice: the highest quality that Pillow's documentation advises, and all
# of the colour.
_PHOTO_OPTIONS: dict[str, Any] = {"quality": 95, "subsampling": 0}
# A PNG may hold its orientation behind the pixels, so Pillow decodes a PNG to
# look for it. These bytes stand before an orientation wherever there is one.
_PNG_METADATA = re.compile(rb"eXIf|Raw profile type exif|XML:com\.adobe\.xmp")
# Tags of TIFF 6.0, section 8, and DNG 1.7, and values of them.
_SUBFILE_TYPE, _REDUCED = 254, 1
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_DNG_VERSION = 50706


class UnsupportedError(ValueError):
  """An image without a clear meaning as colours; the message is the reason."""


class Decoded(NamedTuple):
  """An image as people see it, except that it may have to be turned.

  Attributes:
    image: the pixels, [H, W, 3] uint8.
    orientation: the EXIF orientation to apply, 1 to 8; 1 is upright.
    is_unchanged: whether TensorFlow decodes the same image from the file.
    bits: significant bits of the largest value, 8 to 16; 0 if the file holds 8
      bits or fewer per value.
    is_photo: whether the file is a lossily compressed photo.
  """

  image: np.ndarray
  orientation: int
  is_unchanged: bool
  bits: int
  is_photo: bool


def decode(data: bytes, file_format: str, bits: int = 16) -> Decoded:
  """Decodes the first frame of an image.

  Args:
    data: the file.
    file_format: its format, as Pillow names it.
    bits: of values of more than 8 bits, the significant bits, of which the
      highest 8 are kept.

  Raises:
    UnsupportedError: if nothing says which colours the values mean.
    PIL.Image.DecompressionBombError: if there are more than 179 million pixels,
      Pillow's limit, and also about the largest image that TensorFlow decodes.
    Exception: any other, if the image is truncated or corrupt.
  """
  # Opening reads the header and checks the size, before any pixel is decoded.
  with PIL.Image.open(io.BytesIO(data), formats=[file_format]) as image:
    _check(image)
    if image.format == "TIFF":
      image.load()  # Turns the image upright and drops its orientation.
    orientation = _orientation(image, data)
    shallow, found_bits = _reduce(image, data, bits)
    alpha = _alpha(shallow)
    to_srgb = _to_srgb(image.info.get("icc_profile"), _mode(shallow))
    is_photo = image.format in _PHOTO_FORMATS
    is_plain = alpha is None and to_srgb is None
    if is_plain and image.format in _TRAINING_FORMATS:
      pixels = _decode_as_training(data)
      # Of 16-bit values, TensorFlow takes the highest 8 bits.
      if pixels is not None and (bits == 16 or not found_bits):
        return Decoded(pixels, orientation, True, found_bits, is_photo)
    pixels = np.asarray(_flatten(shallow, alpha, to_srgb))
    return Decoded(pixels, orientation, False, found_bits, is_photo)


def encode(decoded: Decoded) -> bytes:
  """Returns an image as a PNG, or a photo as a JPEG."""
  file = io.BytesIO()
  image = PIL.Image.fromarray(decoded.image)
  if decoded.is_photo:
    image.save(file, "JPEG", **_PHOTO_OPTIONS)
  else:
    image.save(file, "PNG")
  return file.getvalue()


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
  """Applies an EXIF orientation, as `PIL.ImageOps.exif_transpose` does.

  Args:
    image: [H, W, C].
    orientation: a number from 1 to 8.
  """

  def is_any_of(*values):
    return tf.reduce_any(tf.equal(orientation, values))

  def turn():
    transposed = tf.cond(
      orientation > 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image
    )
    flips = [is_any_of(3, 4, 7, 8), is_any_of(2, 3, 6, 7), False]
    # Unlike tf.reverse, this takes axes that are known at run time only.
    return tf.raw_ops.Reverse(tensor=transposed, dims=flips)

  return tf.cond(orientation > 1, turn, lambda: image)


def _check(image: PIL.Image.Image) -> None:
  """Raises `UnsupportedError` if an image is known not to show its subject."""
  if image.mode in ("F", "LAB"):
    what = "white" if image.mode == "F" else "the colour space"
    raise UnsupportedError(
      f"nothing says what is {what} in mode {image.mode}; save it as 16-bit PNG"
    )
  tags = _tags(image)
  # The first page of camera RAW is a thumbnail.
  if tags.get(_SUBFILE_TYPE, 0) & _REDUCED or _DNG_VERSION in tags:
    raise UnsupportedError("camera RAW; develop it to JPEG or PNG")


def _orientation(image: PIL.Image.Image, data: bytes) -> int:
  """Returns the EXIF orientation, 1 if there is no valid one."""
  if image.format == "PNG" and not _PNG_METADATA.search(data):
    return 1
  try:
    found: Any = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Any bytes may stand in the place of EXIF data.
    return 1
  return int(found) if found in range(1, 9) else 1


def _reduce(
  image: PIL.Image.Image, data: bytes, bits: int
) -> tuple[PIL.Image.Image, int]:
  """Returns an image of 8 bits, and the significant bits of the largest value."""
  values = _deep_values(image, data)
  if values is None:
    return image, 0
  is_colour, has_alpha = values.ndim == 3, values.shape[2:] == (4,)
  colours = values[..., :3] if is_colour else values
  if colours.min() < 0 or colours.max() >= 2**16:
    raise UnsupportedError(
      f"values from {colours.min()} to {colours.max()} do not fit 16 bits"
    )
  found_bits = max(int(colours.max()).bit_length(), 8)
  if not is_colour and _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
    colours = 2**bits - 1 - colours
  reduced = (colours >> (bits - 8)).astype(np.uint8)
  if has_alpha:
    reduced = np.dstack([reduced, (values[..., 3] >> 8).astype(np.uint8)])
  shallow = PIL.Image.fromarray(reduced)
  # A grey PNG stays grey for the sake of its colour profile.
  is_grey = is_colour and image.mode.startswith(("I", "L"))
  return shallow.convert("LA") if is_grey else shallow, found_bits


def _deep_values(image: PIL.Image.Image, data: bytes) -> np.ndarray | None:
  """Returns values of more than 8 bits, None if there are none.

  Returns:
    [H, W] of any integers, or [H, W, 3 or 4] uint16, the last channel alpha.
  """
  if image.format == "PNG" and data[24] == 16:  # The depth in the header.
    return tf.io.decode_png(data, channels=4, dtype=tf.uint16).numpy()
  if image.mode.startswith("I"):
    return np.asarray(image)
  is_deep = _tags(image).get(_BITS_PER_SAMPLE, (8,))[0] == 16
  if not is_deep or image.mode not in ("RGB", "RGBA"):
    return None
  return _deep_tiff(data)


def _deep_tiff(data: bytes) -> np.ndarray:
  """Returns the values of a 16-bit colour TIFF, [H, W, 3 or 4] uint16."""
  # Pillow only reads the higher byte of the colours of a TIFF. It reads the
  # other one if it is told the other order of bytes.
  halves, forms = [], set()
  for is_low in (False, True):
    with PIL.Image.open(io.BytesIO(data), formats=["TIFF"]) as half:
      tiles = []
      for tile in half.tile:
        args: Any = tile.args
        form, *rest = args
        forms.add(form)
        if not re.fullmatch("RGB[AXa]?;16[LBN]", form):
          raise UnsupportedError("a rare form of 16-bit TIFF; save it as PNG")
        mode, order = form.replace("a", "A")[:-1], form[-1]
        if is_low:
          order = "L" if order == "B" else "B"
        tiles.append(tile._replace(args=(mode + order, *rest)))
      half.tile = tiles
      halves.append(np.asarray(half).astype(np.uint16))
  values = halves[0] << 8 | halves[1]
  if any(form.startswith("RGBa") for form in forms):  # Multiplied by alpha.
    alpha = values[..., 3:] / (2**16 - 1)
    colours = np.round(values[..., :3] / np.maximum(alpha, 2**-16))
    values[..., :3] = np.minimum(colours, 2**16 - 1)
  return values


def _tags(image: PIL.Image.Image) -> Mapping[int, Any]:
  """Returns the tags of a TIFF; none of other images."""
  return getattr(image, "tag_v2", {})


def _alpha(image: PIL.Image.Image) -> PIL.Image.Image | None:
  """Returns the opacity of each pixel, None if all are opaque."""
  if not image.has_transparency_data:
    return None
  alpha = image.convert("RGBA").getchannel("A")
  return None if alpha.getextrema()[0] == 255 else alpha


def _mode(image: PIL.Image.Image) -> str:
  """Returns the mode in which the colours of an image are compared."""
  if image.mode in ("L", "LA", "La"):
    return "L"
  return "CMYK" if image.mode == "CMYK" else "RGB"


@functools.lru_cache(16)  # Cameras and programs use few profiles.
def _to_srgb(
  profile: bytes | None, mode: str
) -> ImageCms.ImageCmsTransform | None:
  """Returns the conversion from a colour profile to sRGB.

  Returns:
    None if there is no profile, if it is sRGB by name, or if it is broken or
    not for images of this mode.
  """
  if not profile:
    return None
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" in ImageCms.getProfileDescription(source).lower():
      return None
    target = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, target, mode, "RGB")
  except (ImageCms.PyCMSError, OSError):
    return None


def _flatten(
  image: PIL.Image.Image,
  alpha: PIL.Image.Image | None,
  to_srgb: ImageCms.ImageCmsTransform | None,
) -> PIL.Image.Image:
  """Returns an image as RGB, in sRGB and on white."""
  if to_srgb is None:
    colours = image.convert("RGB")
  else:
    colours = to_srgb.apply(image.convert(_mode(image)))
  if alpha is None:
    return colours
  # Our choice: white, as of paper and of most pages that show cut-outs.
  white = PIL.Image.new("RGB", image.size, "white")
  white.paste(colours, mask=alpha)
  return white


def _decode_as_training(data: bytes) -> np.ndarray | None:
  """Returns pixels [H, W, 3] as training reads them, None if it cannot."""
  try:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
  except tf.errors.OpError:
    return None
  return image.numpy() if image.shape.num_elements() else None
