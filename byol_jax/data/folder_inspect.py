"""Decodes the files of a folder to find out which of them are images."""

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
from byol_jax.data.thread_map import thread_map

# Every file is looked at, archives and films too, but only one that starts like
# an image is read to its end.
_MAGIC = re.compile(
  rb"\xff\xd8\xff|\x89PNG|BM|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|P[1-6]\s", re.S
)
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # The same.
_BOMBS = (
  PIL.Image.DecompressionBombError,
  PIL.Image.DecompressionBombWarning,
)


class Image(NamedTuple):
  """A file that holds an image, and what is known of it."""

  file: File
  as_it_is: bool  # Else it is stored as a PNG.
  side: int
  moments: np.ndarray  # [2, 3], means of the channels and of their squares.


def inspect_all(
  root: str, files: Sequence[File]
) -> tuple[list[Image], list[tuple[str, str]]]:
  """Returns the images of a folder, and which files are left out and why."""
  images, broken = [], []
  title = f"Preparing {os.path.basename(root)}"
  for file, look in thread_map(lambda file: inspect(root, file), files, title):
    if isinstance(look, Image):
      images.append(look)
    else:
      broken.append((valid_unicode(file.path), look))
  return images, broken


def inspect(root: str, file: File) -> Image | str:
  """Returns what there is to know of an image, or why it cannot be used."""
  try:
    data = read(root, file)
    if not _MAGIC.match(data):
      return "not an image" if data else "empty file"
    decoded = _decode(data)
    pixels = np.asarray(to_rgb(data)) if decoded is None else decoded
  except _BOMBS as error:
    return f"too large: {textwrap.shorten(str(error), 80)}"
  except PIL.UnidentifiedImageError:  # Says nothing but an address in memory.
    return "truncated or corrupt: its header makes no sense"
  except Exception as error:  # Pillow's decoders raise all there is.
    if isinstance(error, OSError) and error.errno:
      return f"cannot be read: {error.strerror}"
    return f"truncated or corrupt: {textwrap.shorten(str(error), 80)}"
  side = min(pixels.shape[:2])
  return Image(file, decoded is not None, side, _moments(pixels))


def read(root: str, file: File) -> bytes:
  """Returns a file's bytes, no more than the first of them if no image's."""
  with open(os.path.join(root, file.path), "rb") as opened:
    head = opened.read(16)
    return head + opened.read() if _MAGIC.match(head) else head


def _decode(data: bytes) -> np.ndarray | None:
  """Returns pixels [H, W, 3] as training will see them, None if it cannot."""
  if data.startswith(b"BM"):
    return None  # TensorFlow takes numbers in a palette for shades of grey.
  try:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
  except tf.errors.OpError:
    return None
  return image.numpy() if image.shape.num_elements() else None


def to_rgb(data: bytes) -> PIL.Image.Image:
  """Returns an image as Pillow reads it, which knows more formats."""
  with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
    if image.mode in ("I", "F"):
      raise ValueError(f"nothing says what is white in mode {image.mode}")
    if image.mode.startswith("I;16"):  # convert() would clip, not scale.
      scaled = (np.asarray(image) >> 8).astype(np.uint8)
      return PIL.Image.fromarray(scaled).convert("RGB")
    return image.convert("RGB")


def _moments(pixels: np.ndarray) -> np.ndarray:
  """Returns means [2, 3] of an image's channels, in [0, 1], and squares."""
  if min(pixels.shape[:2]) >= 8:
    pixels = pixels[::4, ::4]
  values = pixels.reshape(-1, 3) / 255
  return np.stack([values.mean(axis=0), np.square(values).mean(axis=0)])
