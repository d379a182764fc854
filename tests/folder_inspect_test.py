"""Which files of a folder count as images, and which of them are re-encoded."""

import contextlib
import io
import os
import socket
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax.data import folder_inspect
from byol_jax.data.folder_scan import File
from tests.image_folders import (
  PHOTOS,
  encoded,
  fill,
  insert_chunk,
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
    "nothing says what is white in mode F; save it as 16-bit PNG",
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
  ((name, reason),) = folder.broken
  assert name == "film.avi"
  assert reason.startswith("film")


def test_images_that_would_fill_the_memory_are_left_out(tmp_path, monkeypatch):
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 9999)
  files = {
    f"{size}.{file_format}": encoded(PHOTOS[0].resize((size, 100)), file_format)
    for size in (199, 201)  # The limit is at twice that number.
    for file_format in ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
  }
  decode_image = tf.io.decode_image

  def decode_small(data, **options):
    image = decode_image(data, **options)
    assert image.shape[1] < 200
    return image

  monkeypatch.setattr(tf.io, "decode_image", decode_small)
  folder = load(fill(tmp_path / "root", files), max_broken=0.9)
  assert {name[:3] for name in stored(folder)} == {"199"}
  reasons = dict(folder.broken)
  assert len(reasons) == 6
  assert all(reason.startswith("too large: ") for reason in reasons.values())


def test_files_and_metadata_that_would_fill_the_memory_are_left_out(tmp_path):
  png, megabyte = photo(0, "PNG"), zlib.compress(bytes(2**21))
  files = {
    "a.jpg": photo(),
    "hole.jpg": photo(),
    "profile.png": insert_chunk(png, b"iCCP", b"a\0\0" + megabyte),
    "text.png": insert_chunk(png, b"zTXt", b"a\0\0" + megabyte),
  }
  root = fill(tmp_path / "root", files)
  os.truncate(root / "hole.jpg", 2**40)  # Takes no space on disk.
  broken = dict(load(root, max_broken=0.9).broken)
  assert set(broken) == set(files) - {"a.jpg"}
  assert broken["hole.jpg"] == "too large: 1099511627776 bytes"
  assert "Decompressed data too large" in broken["text.png"]


@pytest.mark.parametrize(
  "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", bytes(65000)]
)
def test_absurd_exif_data_are_ignored(tmp_path, exif):
  data = photo(0, exif=exif)
  assert stored(load(fill(tmp_path / "root", {"a.jpg": data})))["a.jpg"] == data


def test_what_is_no_file_is_named_and_not_opened(tmp_path, monkeypatch):
  root = fill(tmp_path / "root", {"a.jpg": photo()})
  os.mkfifo(root / "pipe.jpg")
  (root / "loop.jpg").symlink_to("loop.jpg")
  with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix_socket:
    monkeypatch.chdir(root)  # The path of a socket must be short.
    unix_socket.bind("socket.jpg")
  reasons = dict(load(root, max_broken=0.9).broken)
  assert reasons.pop("loop.jpg").startswith("cannot be read: ")
  assert reasons == dict.fromkeys(
    ("pipe.jpg", "socket.jpg"), "not a file but a pipe, socket or device"
  )


def test_pipe_that_replaces_a_file_does_not_block(tmp_path, monkeypatch):
  root = fill(tmp_path / "root", {"a.jpg": photo()})
  status = os.stat(root / "a.jpg")
  file = File("a.jpg", status.st_size, status.st_mtime_ns, "train", "")
  (root / "a.jpg").unlink()
  os.mkfifo(root / "a.jpg")
  monkeypatch.setattr(os, "stat", lambda path: status)
  assert folder_inspect.inspect(str(root), file) == "empty file"


def test_unreadable_files_and_folders_are_listed(tmp_path, monkeypatch):
  root = fill(
    tmp_path / "root", {"a.jpg": photo(), "b.jpg": b"", "sub/c.jpg": photo()}
  )
  deny, listdir = PermissionError(13, "Permission denied"), os.listdir

  def deny_b(path, *args, **options):
    if path.endswith("b.jpg"):
      raise deny
    return open(path, *args, **options)

  def deny_sub(path):
    if path.endswith("sub"):
      raise deny
    return listdir(path)

  monkeypatch.setattr(folder_inspect, "open", deny_b, raising=False)
  monkeypatch.setattr(os, "listdir", deny_sub)
  broken = dict(load(root, max_broken=0.9).broken)
  assert broken["b.jpg"] == "cannot be read: Permission denied"
  assert broken["sub"].startswith("cannot be read: ")
