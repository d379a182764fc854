"""Decodes the files of a folder to find the images among them."""

import hashlib
import os
import stat
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from byol_jax.data import image_formats, pixels
from byol_jax.data.folder_scan import File, valid_unicode
from byol_jax.data.statistics import channel_moments
from byol_jax.data.thread_map import thread_map

# Our choice: a file of the most pixels that are read, in 16-bit RGBA, with some
# room.
_MAX_BYTES = 2**31
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
      they hold its pixels, as `pixels.encode` writes them.
    side: short side, pixels.
    moments: `statistics.channel_moments` of the image.
    digest: SHA-256 of the bytes of the file.
    orientation: the EXIF orientation to apply after decoding, 1 to 8.
    bits: significant bits of values of more than 8 bits, the same for all such
      images of a folder; 0 for other images.
  """

  file: File
  is_stored_unchanged: bool
  side: int
  moments: np.ndarray
  digest: bytes
  orientation: int = 1
  bits: int = 0


def inspect_all(
  root: str, files: Sequence[File]
) -> tuple[list[Image], list[BrokenFile]]:
  """Decodes all files and returns the images and the broken files.

  Images of more than 8 bits per value get the same number of significant bits,
  that of the largest value in any of them. So 12-bit data in 16-bit files keep
  their contrast, and the images stay comparable with each other.
  """
  name = os.path.basename(root)
  found = dict(
    thread_map(lambda x: inspect(root, x), files, f"Preparing {name}")
  )
  deep = [x for x in found.values() if isinstance(x, Image) and x.bits]
  if deep:
    bits = max(image.bits for image in deep)
    again = [image.file for image in deep]
    title = f"Scaling {bits} bits in {name}"
    found |= thread_map(lambda x: inspect(root, x, bits), again, title)
  images, broken = [], []
  for file, result in found.items():
    if isinstance(result, Image):
      images.append(result)
    else:
      broken.append(BrokenFile(valid_unicode(file.path), result))
  return images, broken


def inspect(root: str, file: File, bits: int = 0) -> Image | str:
  """Decodes a file, and returns the image or why it cannot be used.

  Args:
    root: the folder.
    file: the file in it.
    bits: significant bits of values of more than 8 bits; 0 measures them.
  """
  try:
    data, file_format, problem = read(root, file)
    if problem:
      return problem
    decoded = pixels.decode(data, file_format, bits or 16)
  except pixels.UnsupportedError as error:
    return str(error)
  except PIL.Image.DecompressionBombError as error:
    return f"too large: {textwrap.shorten(str(error), 80)}"
  except PIL.UnidentifiedImageError:
    # The error's own message only has an address in memory.
    return "truncated or corrupt: its header makes no sense"
  except Exception as error:  # Pillow's decoders raise errors of any type.
    if isinstance(error, OSError) and error.errno:
      return f"cannot be read: {error.strerror}"
    return f"truncated or corrupt: {textwrap.shorten(str(error), 80)}"
  return Image(
    file,
    decoded.is_unchanged,
    min(decoded.image.shape[:2]),
    channel_moments(decoded.image, _STRIDE),
    hashlib.sha256(data).digest(),
    decoded.orientation,
    decoded.bits and (bits or decoded.bits),
  )


def read(root: str, file: File) -> tuple[bytes, str, str]:
  """Reads an image, or only the first bytes of any other file.

  Returns:
    The bytes, the format as Pillow names it, and why the file cannot be used,
    "" if it can.
  """
  path = os.path.join(root, file.path)
  mode = os.stat(path).st_mode
  # A folder is here if it could not be listed. Opening it tells why.
  if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
    return b"", "", "not a file but a pipe, socket or device"
  with open(path, "rb", opener=_open_without_waiting) as opened:
    head = opened.read(image_formats.HEAD_BYTES)
    file_format, problem = image_formats.recognise(head)
    if problem:
      return head, file_format, problem
    size = os.fstat(opened.fileno()).st_size
    if size > _MAX_BYTES:
      return head, file_format, f"too large: {size} bytes"
    return head + opened.read(), file_format, ""


def _open_without_waiting(path: str, flags: int) -> int:
  """Opens a file; does not wait if it has just been replaced by a pipe."""
  return os.open(path, flags | os.O_NONBLOCK)
