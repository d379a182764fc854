"""Which files of a folder count as images, and which of them are re-encoded."""

import io
import os
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax.data import folder_inspect
from tests.image_folders import (
  PHOTOS,
  encoded,
  fill,
  load,
  photo,
  split_names,
  stored,
)

DEEP = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 32  # 16 bit.


def zipped(text: str) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("a.txt", text)
  return file.getvalue()


GOOD = {
  "photo.jpg": photo(0),
  "other photo.jpeg": photo(1),
  "progressive.jpg": photo(0, progressive=True),
  "grey.jpg": photo(0, mode="L"),
  "cmyk.jpg": photo(0, mode="CMYK"),
  "grey.png": photo(0, "PNG", "L"),
  "rgba.png": photo(0, "PNG", "RGBA"),
  "palette.png": photo(0, "PNG", "P"),
  "one bit.png": photo(0, "PNG", "1"),
  "16 bit.png": encoded(PIL.Image.fromarray(DEEP), "PNG"),
  "tiny.png": encoded(PIL.Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"),
  "panorama.jpg": encoded(PHOTOS[0].resize((2000, 10)), "JPEG"),
  "still.gif": photo(0, "GIF"),
  "moving.gif": photo(
    0, "GIF", save_all=True, append_images=[PHOTOS[1], PHOTOS[0].rotate(90)]
  ),
  "photo.webp": photo(1, "WEBP"),
  "UPPER.JPG": photo(1, quality=50),
  "png.jpg": photo(1, "PNG"),
  "no extension": photo(1, quality=60),
  "deep/er/äöü 写真 🐈.jpg": photo(1, quality=70),
}


# TensorFlow cannot read these, or reads them wrongly.
REENCODED = {
  "24 bit.bmp": photo(0, "BMP"),
  "palette.bmp": photo(0, "BMP", "P"),
  "one bit.bmp": photo(0, "BMP", "1"),
  "photo.tif": photo(0, "TIFF"),
  "grey.pgm": photo(0, "PPM", "L"),
  "without end.png": photo(1, "PNG")[:-12],
}


BROKEN = {
  "empty.jpg": (b"", "empty file"),
  "text.jpg": (b"Not found\n" * 9, "not an image"),
  "archive.zip": (zipped("text"), "not an image"),
  "random.png": (np.random.RandomState(0).bytes(999), "not an image"),
  "half.jpg": (photo()[:2000], "truncated or corrupt: image file is trunc"),
  "half.png": (photo(0, "PNG")[:9999], "truncated or corrupt: image file is"),
  "head.jpg": (photo()[:20], "truncated or corrupt: its header makes no"),
  "garbage.jpg": (photo()[:640] + bytes(999), "truncated or corrupt: "),
  "float.tif": (
    encoded(PIL.Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
    "truncated or corrupt: nothing says what is white in mode F",
  ),
}


def decode(data: bytes) -> np.ndarray:
  return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  broken = {name: data for name, (data, _) in BROKEN.items()}
  root = tmp_path_factory.mktemp("mixed") / "all kinds"
  return load(fill(root, GOOD | REENCODED | broken), max_broken=0.5)


def test_all_good_files_are_stored_once(mixed):
  assert set(stored(mixed)) == set(GOOD) | set(REENCODED)
  assert split_names(mixed) == {"train"}
  assert mixed.builder.info.file_format == tfds.core.FileFormat.TFRECORD


def test_what_tensorflow_reads_is_stored_as_it_is(mixed):
  images = stored(mixed)
  for name, data in GOOD.items():
    assert images[name] == data, name
    assert decode(data).ndim == 3


@pytest.mark.parametrize("name", REENCODED)
def test_what_tensorflow_misreads_is_stored_as_png(mixed, name):
  data = stored(mixed)[name]
  assert data.startswith(b"\x89PNG")
  with PIL.Image.open(io.BytesIO(REENCODED[name])) as image:
    np.testing.assert_array_equal(decode(data), image.convert("RGB"))


def test_16_bit_tiff_is_scaled_and_not_clipped(tmp_path):
  tiff = encoded(PIL.Image.fromarray(DEEP), "TIFF")
  folder = load(fill(tmp_path / "root", {"a.tif": tiff}))
  pixels = decode(stored(folder)["a.tif"])
  np.testing.assert_array_equal(pixels[..., 0], DEEP // 256)


def test_broken_files_are_listed_with_reasons(mixed):
  assert [name for name, _ in mixed.broken] == sorted(BROKEN)
  for name, reason in mixed.broken:
    assert reason.startswith(BROKEN[name][1]), (name, reason)
    assert len(reason) < 110
    assert "\n" not in reason
    assert "/" not in reason
    assert "0x" not in reason


def test_what_is_no_image_is_not_read_to_its_end(tmp_path):
  root = fill(
    tmp_path / "root", {"a.jpg": photo(), "film.avi": b"RIFF    AVI "}
  )
  os.truncate(root / "film.avi", 2**40)  # A hole, which takes no space.
  folder = load(root, max_broken=0.5)
  assert folder.broken == [("film.avi", "not an image")]


def test_images_that_would_fill_the_memory_are_left_out(tmp_path, monkeypatch):
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 9999)
  files = {
    "good.jpg": photo(),  # TensorFlow reads it, so there is nothing to fear.
    "warning.bmp": photo(0, "BMP"),
    "error.bmp": encoded(PHOTOS[0].resize((200, 200)), "BMP"),
  }
  folder = load(fill(tmp_path / "root", files), max_broken=0.9)
  reasons = dict(folder.broken)
  assert set(reasons) == {"warning.bmp", "error.bmp"}
  assert all(reason.startswith("too large: ") for reason in reasons.values())


def test_unreadable_files_and_folders_are_listed(tmp_path, monkeypatch):
  root = fill(
    tmp_path / "root", {"a.jpg": photo(), "b.jpg": b"", "sub/c.jpg": photo()}
  )
  deny, listdir = PermissionError(13, "Permission denied"), os.listdir

  def deny_b(path, *args):
    if path.endswith("b.jpg"):
      raise deny
    return open(path, *args)

  def deny_sub(path):
    if path.endswith("sub"):
      raise deny
    return listdir(path)

  monkeypatch.setattr(folder_inspect, "open", deny_b, raising=False)
  monkeypatch.setattr(os, "listdir", deny_sub)
  broken = dict(load(root, max_broken=0.9).broken)
  assert broken["b.jpg"] == "cannot be read: Permission denied"
  assert broken["sub"].startswith("cannot be read: ")
