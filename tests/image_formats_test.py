"""Which formats are recognised, and what is said about those without decoder."""

import PIL.Image
import pytest
from PIL import features

from byol_jax.data import image_formats
from tests.image_folders import encoded, fill, load, photo

READ = ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000"]
if features.check("avif"):
  READ.append("AVIF")
NAMED = {
  "camera RAW": [
    b"II*\0\x10\0\0\0CR\x02\0",
    b"IIRO\x08\0\0\0",
    b"IIU\0\x08\0\0\0",
    b"FUJIFILMCCD-RAW 0201",
    b"\0\0\0\x18ftypcrx \0\0\0\1",
  ],
  "HEIC": [b"\0\0\0\x18ftypheic\0\0\0\0", b"\0\0\0\x18ftypmif1\0\0\0\0"],
  "JPEG XL": [b"\xff\x0a\xff\x07", b"\0\0\0\x0cJXL \r\n\x87\n"],
  "AVIF": [b"\0\0\0\x1cftypavif\0\0\0\0"],
  "DICOM": [bytes(128) + b"DICM"],
  "Photoshop": [b"8BPS\0\1"],
  "PDF": [b"%PDF-1.7\n"],
  "SVG": [
    b"<svg xmlns=",
    b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- Made by hand. -->\n<svg>',
  ],
  "film": [
    b"RIFF\0\0\0\0AVI LIST",
    b"\0\0\0\x18ftypmp42",
    b"\0\0\0\x14ftypqt  ",
    b"\x1aE\xdf\xa3\x01",
    b"\0\0\x01\xba\x44",
  ],
}


@pytest.mark.parametrize("name", READ)
def test_formats_of_pillow_are_recognised(name):
  data = photo(0, name)
  assert image_formats.recognise(data) == (name, "")


def test_big_tiff_is_recognised():
  data = photo(0, "TIFF", big_tiff=True)
  assert data[2] == 43
  assert image_formats.recognise(data) == ("TIFF", "")


@pytest.mark.parametrize(
  ("name", "data"),
  [(name, data) for name, heads in NAMED.items() for data in heads],
)
def test_formats_without_decoder_are_named_with_a_remedy(
  name, data, monkeypatch
):
  monkeypatch.setattr(image_formats, "_decoders", lambda: ("JPEG", "TIFF"))
  found, problem = image_formats.recognise(data)
  assert found == ""
  assert problem.startswith(name)
  assert "; " in problem


@pytest.mark.parametrize(
  "data", [b"<html><body>404", b'<?xml version="1.0"?>\n<note>', bytes(200)]
)
def test_other_files_are_no_images(data):
  assert image_formats.recognise(data) == ("", "not an image")


def test_thumbnails_in_camera_raw_are_left_out(tmp_path):
  files = {
    "a.jpg": photo(),
    # A reduced image, as in NEF and ARW, and the version that marks a DNG.
    "b.nef": photo(0, "TIFF", tiffinfo={254: 1}),
    "c.dng": photo(0, "TIFF", tiffinfo={50706: b"\1\4\0\0"}),
  }
  folder = load(fill(tmp_path / "root", files), max_broken=0.9)
  reason = "camera RAW; develop it to JPEG or PNG"
  assert folder.broken == [("b.nef", reason), ("c.dng", reason)]


@pytest.mark.parametrize(
  ("plugin", "name"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")]
)
def test_plugins_add_formats(tmp_path, plugin, name):
  pytest.importorskip(plugin)
  image_formats.recognise(b"II*\0")  # Registers the plugins.
  image = PIL.Image.open(fill(tmp_path, {"a.jpg": photo()}) / "a.jpg")
  data = encoded(image.convert("RGB"), name)
  assert image_formats.recognise(data) == (name, "")
