"""Decodes the files of a folder to find the images among them."""

import hashlib
import io
import os
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf

from byol_jax.data.folder_scan import File, valid_unicode
from byol_jax.data.statistics import channel_moments
from byol_jax.data.thread_map import thread_map

# The first bytes of an image. Every file is opened, and a folder may also hold
# archives and films, so a file that starts differently is not read any further.
_MAGIC = re.compile(
  rb"\xff\xd8\xff|\x89PNG|BM|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|P[1-6]\s", re.S
)
# The same formats by their names in Pillow.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_TOO_LARGE = (
  PIL.Image.DecompressionBombError,
  PIL.Image.DecompressionBombWarning,
)
# Channel statistics are computed from every fourth row and column.
_STRIDE = 4


class BrokenFile(NamedTuple):
  """A file that is left out.

  Attributes:
    path: path relative to the root, as valid Unicode.
    reason: why the file cannot be used, in one line.
  """

  path: str
  reason: str


class Image(NamedTuple):
  """A file that holds an image that can be used.

  Attributes:
    file: the file.
    is_stored_unchanged: whether records hold the bytes of the file; otherwise
      they hold a PNG with the same pixels.
    side: short side, pixels.
    moments: `statistics.channel_moments` of the image.
    digest: SHA-256 of the bytes of the file.
  """

  file: File
  is_stored_unchanged: bool
  side: int
  moments: np.ndarray
  digest: bytes


def inspect_all(
  root: str, files: Sequence[File]
) -> tuple[list[Image], list[BrokenFile]]:
  """Decodes all files and returns the images and the broken files."""
  images, broken = [], []
  title = f"Preparing {os.path.basename(root)}"
  for file, found in thread_map(lambda x: inspect(root, x), files, title):
    if isinstance(found, Image):
      images.append(found)
    else:
      broken.append(BrokenFile(valid_unicode(file.path), found))
  return images, broken


def inspect(root: str, file: File) -> Image | str:
  """Decodes a file, and returns the image or why it cannot be used."""
  try:
    data = read(root, file)
    if not _MAGIC.match(data):
      return "not an image" if data else "empty file"
    decoded = _decode(data)
    pixels = np.asarray(decode_rgb(data)) if decoded is None else decoded
  except _TOO_LARGE as error:
    return f"too large: {textwrap.shorten(str(error), 80)}"
  except PIL.UnidentifiedImageError:
    # The error's own message only has an address in memory.
    return "truncated or corrupt: its header makes no sense"
  except Exception as error:  # Pillow's decoders raise errors of any type.
    if isinstance(error, OSError) and error.errno:
      return f"cannot be read: {error.strerror}"
    return f"truncated or corrupt: {textwrap.shorten(str(error), 80)}"
  moments = channel_moments(pixels, _STRIDE)
  side = min(pixels.shape[:2])
  digest = hashlib.sha256(data).digest()
  return Image(file, decoded is not None, side, moments, digest)


def read(root: str, file: File) -> bytes:
  """Returns the bytes of an image, or the first 16 bytes of any other file."""
  with open(os.path.join(root, file.path), "rb") as opened:
    head = opened.read(16)
    return head + opened.read() if _MAGIC.match(head) else head


def decode_rgb(data: bytes) -> PIL.Image.Image:
  """Decodes an image with Pillow, which reads more formats than TensorFlow.

  Raises:
    ValueError: if the pixels are 32-bit numbers, whose range is unknown.
    Exception: any other, if the image is truncated or corrupt.
  """
  with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
    if image.mode in ("I", "F"):
      raise ValueError(f"nothing says what is white in mode {image.mode}")
    if image.mode.startswith("I;16"):  # convert() would clip and not scale.
      scaled = (np.asarray(image) >> 8).astype(np.uint8)
      return PIL.Image.fromarray(scaled).convert("RGB")
    return image.convert("RGB")


def _decode(data: bytes) -> np.ndarray | None:
  """Returns pixels [H, W, 3] as training reads them, None if it cannot."""
  if data.startswith(b"BM"):
    return None  # TensorFlow reads indices into a palette as shades of grey.
  try:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
  except tf.errors.OpError:
    return None
  return image.numpy() if image.shape.num_elements() else None
