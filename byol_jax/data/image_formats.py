"""Recognises the formats of images by their first bytes."""

import contextlib
import functools
import os
import re
from collections.abc import Container, Iterable
from typing import NamedTuple

import PIL.Image

# The first bytes that `recognise` looks at. An XML declaration may stand before
# the tag of a drawing.
HEAD_BYTES = 512


class Format(NamedTuple):
  """A format of files.

  Attributes:
    pillow: name in Pillow; empty if it has no decoder that would do.
    magic: pattern of the first bytes.
    problem: what to tell about a file if Pillow lacks the decoder.
  """

  pillow: str
  magic: bytes
  problem: str = ""


_FORMATS = (
  # Some raw formats start like TIFF, so they come first.
  Format(
    "",
    rb"II\*\0.{4}CR|II(RO|RS|U\0)|.{4}ftypcrx|FUJIFILMCCD|FOVb",
    "camera RAW; develop it to JPEG or PNG",
  ),
  Format("JPEG", rb"\xff\xd8\xff"),
  Format("PNG", rb"\x89PNG"),
  Format("BMP", rb"BM"),
  Format("GIF", rb"GIF8"),
  Format("WEBP", rb"RIFF.{4}WEBP"),
  Format("TIFF", rb"II[*+]\0|MM\0[*+]"),
  Format("PPM", rb"P[1-6]\s"),
  Format("JPEG2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
  Format("AVIF", rb".{4}ftypavi[fs]", "AVIF; update Pillow to 11.3 or newer"),
  Format(
    "HEIF",
    rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)",
    "HEIC; run pip install pillow-heif, or convert it to JPEG",
  ),
  Format(
    "JXL",
    rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG XL; run pip install pillow-jxl-plugin, or convert it to PNG",
  ),
  Format("", rb".{128}DICM", "DICOM; convert it to 16-bit PNG"),
  Format("", rb"8BPS", "Photoshop document; export it as PNG"),
  Format("", rb"%PDF", "PDF document; export its pages as PNG"),
  Format("", rb"(\xef\xbb\xbf)?\s*<(\?xml.*<)?svg", "SVG drawing; render it"),
  Format(
    "",
    rb"RIFF.{4}AVI |.{4}(ftyp|moov|mdat)|\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]",
    "film; extract its frames as JPEG or PNG",
  ),
)


# Endings of the formats that a plugin or a newer Pillow decodes.
_OPTIONAL = {
  "AVIF": (".avif", ".avifs"),
  "HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
  "JXL": (".jxl",),
}


def optional_decoders(paths: Iterable[str]) -> list[str]:
  """Returns the decoders for files of these names that not every computer has."""
  endings = {os.path.splitext(path)[1].lower() for path in paths}
  return [
    name
    for name, own in _OPTIONAL.items()
    if name in _decoders() and endings.intersection(own)
  ]


def recognise(head: bytes) -> tuple[str, str]:
  """Returns the format of a file, or why it cannot be used.

  Args:
    head: the first `HEAD_BYTES` bytes of the file, or all if it has fewer.

  Returns:
    The format's name in Pillow and ""; or "" and the reason, in a few words.
  """
  if not head:
    return "", "empty file"
  for pillow, magic, problem in _FORMATS:
    if re.match(magic, head, re.S):
      return (pillow, "") if pillow in _decoders() else ("", problem)
  return "", "not an image"


@functools.cache
def _decoders() -> Container[str]:
  """Returns the names of the formats that Pillow and its plugins decode."""
  PIL.Image.init()
  with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
  with contextlib.suppress(ImportError):
    import pillow_jxl  # noqa: F401
  return PIL.Image.OPEN
