"""Pieces of a page: escaped text, tables and pictures inside the HTML."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image
import PIL.ImageOps

from byol_jax.reporting import style

# Pixels a side of a picture on the page, at most: our choice, sharp at the size
# that a phone shows.
_LARGEST_SIDE = 128
# Up to this side, JPEG's blocks would show and PNG is small.
_SMALL_SIDE = 48


def text(value: object) -> str:
  """Returns a value as HTML text."""
  return html.escape(str(value))


def section(title: str, *parts: str) -> str:
  """Returns a titled part of the page; parts are HTML."""
  return f"<section><h2>{text(title)}</h2>\n{''.join(parts)}</section>\n"


def note(words: str) -> str:
  """Returns a paragraph in smaller print."""
  return f"<p class=note>{text(words)}</p>\n"


def table(
  header: Sequence[object], rows: Iterable[Sequence[object]], kind: str = ""
) -> str:
  """Returns a table that scrolls by itself where it is wider than the page.

  Args:
    header: of the columns.
    rows: the cells of each row, the first of which names it.
    kind: `numbers` for columns of numbers, in which intervals stay on one line,
      "" for text.
  """
  head = "".join(f"<th scope=col>{text(name)}</th>" for name in header)
  comma = ",&nbsp;" if kind == "numbers" else ", "
  body = "".join(
    f"<tr><th scope=row>{text(first)}</th>"
    + "".join(f"<td>{text(cell).replace(', ', comma)}</td>" for cell in cells)
    + "</tr>\n"
    for first, *cells in rows
  )
  return (
    f'<div class=scroll tabindex=0><table class="{kind}"><thead><tr>{head}</tr>'
    f"</thead><tbody>\n{body}</tbody></table></div>\n"
  )


def image(pixels: np.ndarray, described: str, kind: str = "") -> str:
  """Returns a picture that is part of the page.

  Args:
    pixels: [H, W, 3 or 1], uint8 or in [0, 1].
    described: for people who do not see it.
    kind: its class.
  """
  picture = _to_picture(pixels)
  picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
  small = max(picture.size) <= _SMALL_SIDE
  kind = f"{kind} pixelated" if small else kind
  return (
    f'<img class="{kind}" width={picture.width} height={picture.height}'
    f' alt="{text(described)}" src="{_uri(picture, "PNG" if small else "JPEG")}">'
  )


def sprite(pixels: np.ndarray, side: int, columns: int) -> str:
  """Returns the URI of a `sheet`."""
  return _uri(sheet(pixels, side, columns), "JPEG")


def sheet(pixels: np.ndarray, side: int, columns: int) -> PIL.Image.Image:
  """Returns one picture with images [N, H, W, 3 or 1] row by row.

  Args:
    pixels: in [0, 1].
    side: of the square for each image; images that are not square get black bars.
    columns: of images.
  """
  rows = -(-len(pixels) // columns)
  whole = PIL.Image.new("RGB", (columns * side, rows * side))
  for i, one in enumerate(pixels):
    place = (i % columns * side, i // columns * side)
    whole.paste(PIL.ImageOps.pad(_to_picture(one), (side, side)), place)
  return whole


def _to_picture(pixels: np.ndarray) -> PIL.Image.Image:
  pixels = style.to_rgb(pixels)
  if pixels.dtype != np.uint8:
    pixels = np.clip(np.rint(pixels * 255.0), 0, 255).astype(np.uint8)
  return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def _uri(picture: PIL.Image.Image, file_format: str) -> str:
  file = io.BytesIO()
  picture.save(file, file_format)
  data = base64.b64encode(file.getvalue()).decode()
  return f"data:image/{file_format.lower()};base64,{data}"
