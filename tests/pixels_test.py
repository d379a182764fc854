"""What the network sees of each kind of image, against what people see."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from PIL import ImageCms, ImageOps, features

from byol_jax.config import schema
from byol_jax.data import loading, pixels, records
from tests.image_folders import (
  PHOTOS,
  encoded,
  fill,
  insert_chunk,
  load,
  photo,
  stored,
)

RNG = np.random.RandomState(0)
# Not square and without symmetry, and without fine detail, which JPEG changes.
SMALL = PHOTOS[0].resize((40, 24))
ALPHA = np.linspace(0, 255, 24 * 40).round().astype(np.uint8).reshape(24, 40)
VISIBLE = RNG.rand(24, 40) < 0.5


def with_alpha(mode, alpha=ALPHA):
  image = SMALL.convert(mode)
  image.putalpha(PIL.Image.fromarray(alpha))
  return image


def cut_out(mode):
  """An image of which one colour is transparent, and that colour."""
  image = np.array(SMALL.convert(mode))
  image[~VISIBLE] = 77
  image[VISIBLE & np.all(image.reshape(24, 40, -1) == 77, -1)] = 78
  return PIL.Image.fromarray(image), 77 if mode == "L" else (77,) * 3


def palette():
  image = SMALL.quantize(255)
  indices = np.where(VISIBLE, np.array(image), 255).astype(np.uint8)
  changed = PIL.Image.fromarray(indices, "P")
  changed.putpalette([*image.getpalette()[: 3 * 255], 255, 0, 255])
  return changed


def turned(orientation, file_format, **options):
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  return encoded(SMALL, file_format, exif=exif, **options)


def xmp_png(orientation):
  xmp = f'<x tiff:Orientation="{orientation}"/>'.encode()
  png = encoded(SMALL, "PNG")
  return insert_chunk(png, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)


def swapped_profile() -> bytes:
  """A profile whose red is sRGB's green and the other way round."""
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  name = "sRGB".encode("utf-16-be")
  assert srgb.count(name) == 1
  head, tags = srgb[:128], srgb[128:].replace(name, "mine".encode("utf-16-be"))
  for old, new in ((b"rXYZ", b"####"), (b"gXYZ", b"rXYZ"), (b"####", b"gXYZ")):
    tags = tags.replace(old, new, 1)
  return head + tags


def srgb_profile() -> bytes:
  return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


PAGES = {"save_all": True, "append_images": [PHOTOS[1].resize((40, 24))]}
TURNED = {
  f"{file_format} {orientation}": turned(orientation, file_format, **options)
  for orientation in range(1, 9)
  for file_format, options in (
    ("JPEG", {}),
    ("PNG", {}),
    ("TIFF", {}),
    ("WEBP", {"lossless": True}),
  )
} | {"XMP 8": xmp_png(8), "absurd": turned(9, "PNG")}
TRANSPARENT = {
  "RGBA.png": encoded(with_alpha("RGB"), "PNG"),
  "LA.png": encoded(with_alpha("L"), "PNG"),
  "RGBA.tif": encoded(with_alpha("RGB"), "TIFF"),
  "RGBA.webp": encoded(with_alpha("RGB"), "WEBP", lossless=True, exact=True),
  "palette.png": encoded(palette(), "PNG", transparency=255),
  "palette.gif": encoded(palette(), "GIF", transparency=255),
  **{
    f"{mode} colour.png": encoded(image, "PNG", transparency=colour)
    for mode in ("L", "RGB")
    for image, colour in [cut_out(mode)]
  },
}
PROFILED = {
  "profile.png": encoded(SMALL, "PNG", icc_profile=swapped_profile()),
  "profile.tif": encoded(SMALL, "TIFF", icc_profile=swapped_profile()),
  "profile.jpg": photo(0, icc_profile=swapped_profile()),
}
FIRST_PAGES = {
  "pages.gif": encoded(palette(), "GIF", **PAGES),
  "pages.png": encoded(SMALL, "PNG", **PAGES),
  "pages.webp": encoded(SMALL, "WEBP", lossless=True, **PAGES),
  "pages.tif": encoded(SMALL, "TIFF", **PAGES),
  "pages.mpo": encoded(SMALL, "MPO", **PAGES),
}
UNCHANGED = {
  "srgb.jpg": photo(0, icc_profile=srgb_profile()),
  "broken profile.jpg": photo(1, icc_profile=b"no profile"),
  "profile for colours.jpg": photo(0, mode="L", icc_profile=swapped_profile()),
  "cmyk.jpg": photo(0, mode="CMYK"),
  "opaque.png": encoded(
    with_alpha("RGB", np.full((24, 40), 255, np.uint8)), "PNG"
  ),
  "gamma.png": insert_chunk(
    encoded(SMALL, "PNG"), b"gAMA", struct.pack(">I", 100_000)
  ),
}
OTHERS = {"photo.jp2": encoded(SMALL, "JPEG2000", irreversible=False)}
if features.check("avif"):
  OTHERS["photo.avif"] = encoded(SMALL, "AVIF", quality=100)
ALL = TURNED | TRANSPARENT | PROFILED | FIRST_PAGES | UNCHANGED | OTHERS


def parsed(source) -> dict[str, np.ndarray]:
  """The images of a folder as the network gets them, by file name."""
  parse = records.parser(source)
  examples = records.read_in_order(records.split_files(source, "train"))
  images = [image.numpy() for image, _ in examples.map(parse)]
  names = source.builder.as_dataset("train").map(lambda x: x["file"])
  names = [name.decode() for name in names.as_numpy_iterator()]
  return dict(zip(names, images, strict=True))


def open_folder(tmp_path, files) -> loading.Source:
  root = fill(tmp_path / "root", files)
  options = schema.DataConfig(data_dir=str(tmp_path / "data"), max_broken=0.0)
  return loading.load_folder(str(root), options)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
  return open_folder(tmp_path_factory.mktemp("kinds"), ALL)


@pytest.fixture(scope="module")
def seen(kinds):
  return parsed(kinds)


@pytest.fixture(scope="module")
def kept(kinds):
  return stored(kinds)


def pillow(data: bytes) -> PIL.Image.Image:
  return PIL.Image.open(io.BytesIO(data))


def assert_close(actual, expected, mean=0.0):
  assert actual.shape == np.shape(expected)
  difference = np.abs(actual.astype(int) - np.asarray(expected, int))
  assert difference.mean() <= mean


@pytest.mark.parametrize("name", TURNED)
def test_turned_images_are_seen_upright(seen, name):
  expected = ImageOps.exif_transpose(pillow(TURNED[name])).convert("RGB")
  # Two decoders of JPEG round differently. Any other turn is off by over 20.
  assert_close(seen[name], expected, 2.0 if "JPEG" in name else 0.0)


@pytest.mark.parametrize("name", TURNED)
def test_turned_images_keep_their_bytes(kept, name):
  if "TIFF" not in name:
    assert kept[name] == TURNED[name]


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_images_are_seen_on_white(seen, name):
  rgba = np.asarray(pillow(TRANSPARENT[name]).convert("RGBA")).astype(float)
  alpha = rgba[..., 3:] / 255
  assert alpha.min() == 0
  assert alpha.max() == 1
  expected = (alpha * rgba[..., :3] + (1 - alpha) * 255).round()
  np.testing.assert_allclose(seen[name], expected, atol=1)
  assert np.all(seen[name][alpha[..., 0] == 0] == 255)


@pytest.mark.parametrize("name", PROFILED)
def test_profiles_are_applied(seen, name):
  profile = ImageCms.ImageCmsProfile(io.BytesIO(swapped_profile()))
  image = pillow(PROFILED[name])
  expected = ImageCms.profileToProfile(
    image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
  )
  assert np.abs(np.asarray(expected, int) - np.asarray(image)).mean() > 5
  assert_close(seen[name], expected, 2.5 if name.endswith("jpg") else 0.0)


def test_photos_with_a_profile_stay_small(kept):
  assert kept["profile.jpg"].startswith(b"\xff\xd8\xff")
  assert kept["profile.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIRST_PAGES)
def test_the_first_page_is_seen(seen, name):
  expected = pillow(FIRST_PAGES[name]).convert("RGB")
  assert_close(seen[name], expected, 2.0 if "mpo" in name else 0.0)


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_is_seen_rightly_is_stored_unchanged(kept, seen, name):
  assert kept[name] == UNCHANGED[name]
  assert_close(seen[name], pillow(UNCHANGED[name]).convert("RGB"), 1.0)


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_of_pillow_are_stored_as_png(kept, seen, name):
  assert kept[name].startswith(b"\x89PNG")
  assert_close(seen[name], pillow(OTHERS[name]).convert("RGB"))
  assert_close(seen[name], SMALL, 4.0)


def test_upright_images_have_no_orientation_in_their_records(tmp_path, kinds):
  assert pixels.ORIENTATION in kinds.builder.info.features
  source = open_folder(tmp_path, {"a.jpg": TURNED["JPEG 1"]})
  assert set(source.builder.info.features) == {"image", "file"}


VALUES = RNG.randint(0, 2**12, (24, 40, 4)).astype(np.uint16)
VALUES[..., 3] = VALUES[..., 3] << 4 | 15  # Alpha uses all of 16 bits.


def deep_png(channels) -> bytes:
  return tf.io.encode_png(VALUES[..., :channels]).numpy()


def grey_profile() -> bytes:
  """A profile of grey values that are light, without a gamma."""
  white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)  # D50.
  linear = struct.pack(">4s4xI", b"curv", 0)
  text = b"linear grey\0"
  name = struct.pack(">4s4xI", b"desc", len(text)) + text + bytes(78)
  tags = {b"wtpt": white, b"kTRC": linear, b"desc": name}
  start = 128 + 4 + 12 * len(tags)
  table, body = struct.pack(">I", len(tags)), b""
  for tag, data in tags.items():
    table += struct.pack(">4sII", tag, start + len(body), len(data))
    body += data + bytes(-len(data) % 4)
  head = struct.pack(
    ">I4sI4s4s4s12x4s", start + len(body), b"", 0x2100000,
    b"mntr", b"GRAY", b"XYZ ", b"acsp",
  )  # fmt: skip
  head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
  return head.ljust(128, b"\0") + table + body


def deep_tiff(order, colours=VALUES[..., :3], extra=()) -> bytes:
  """A TIFF of 16-bit colours, which Pillow cannot write.

  Args:
    order: of bytes, < or >.
    colours: [24, 40, channels].
    extra: what the fourth channel means: 1 for alpha that colours are
      multiplied by.
  """
  channels = colours.shape[-1]
  entries = {
    256: (3, 40),
    257: (3, 24),
    258: (3, None),
    259: (3, 1),
    262: (3, 2),
    273: (4, 8),
    277: (3, channels),
    278: (3, 24),
    279: (4, 24 * 40 * channels * 2),
  }
  if extra:
    entries[338] = (3, *extra)
  body = colours.astype(f"{order}u2").tobytes()
  depths = 8 + len(body)
  table = struct.pack(f"{order}H", len(entries))
  for tag, (kind, value) in entries.items():
    if value is None:
      table += struct.pack(f"{order}HHII", tag, kind, channels, depths)
    elif kind == 3:
      table += struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
    else:
      table += struct.pack(f"{order}HHII", tag, kind, 1, value)
  head = {"<": b"II*\0", ">": b"MM\0*"}[order]
  return (
    head
    + struct.pack(f"{order}I", depths + 2 * channels)
    + body
    + struct.pack(f"{order}{channels}H", *channels * [16])
    + table
    + bytes(4)
  )


GREY = PIL.Image.fromarray(VALUES[..., 0])
DEEP = {
  "grey.png": deep_png(1),
  "grey.tif": encoded(GREY, "TIFF"),
  "packed.tif": encoded(GREY, "TIFF", compression="tiff_deflate"),
  "32 bit.tif": encoded(
    PIL.Image.fromarray(VALUES[..., 0].astype(np.int32)), "TIFF"
  ),
  "colour.png": deep_png(3),
  "little.tif": deep_tiff("<"),
  "big.tif": deep_tiff(">"),
}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
  extra = {"alpha.png": deep_png(4), "8 bit.png": encoded(SMALL, "PNG")}
  return open_folder(tmp_path_factory.mktemp("deep"), DEEP | extra)


def test_12_bits_are_scaled_to_8(deep):
  assert "scaled from 12 bits" in " ".join(deep.notes)
  seen = parsed(deep)
  for name in DEEP:
    channels = VALUES[..., :3] if name[0] in "clb" else VALUES[..., :1]
    expected = np.broadcast_to(channels >> 4, (24, 40, 3))
    np.testing.assert_array_equal(seen[name], expected, name)
  np.testing.assert_array_equal(seen["8 bit.png"], SMALL)
  alpha = (VALUES[..., 3:] >> 8) / 255
  expected = alpha * (VALUES[..., :3] >> 4) + (1 - alpha) * 255
  np.testing.assert_allclose(seen["alpha.png"], expected, atol=1)


@pytest.mark.parametrize("order", "<>")
def test_colours_that_are_multiplied_by_alpha_are_divided(order):
  bright = VALUES.astype(np.float64)
  bright[..., :3] *= 16
  alpha = bright[..., 3:] / 65535
  given = np.dstack([np.round(bright[..., :3] * alpha), bright[..., 3:]])
  # The file, the division and white round once each.
  decoded = pixels.decode(deep_tiff(order, given, extra=(1,)), "TIFF")
  kept = (bright[..., 3:] // 256) / 255  # As of other 16-bit images.
  expected = kept * (bright[..., :3] // 256) + (1 - kept) * 255
  np.testing.assert_allclose(decoded.image, expected, atol=1.5)


def test_grey_values_of_16_bits_have_their_profile_applied():
  chunk = b"grey\0\0" + zlib.compress(grey_profile())
  png = insert_chunk(deep_png(1), b"iCCP", chunk)
  grey = PIL.Image.fromarray((VALUES[..., 0] >> 4).astype(np.uint8))
  expected = ImageCms.profileToProfile(
    grey,
    ImageCms.ImageCmsProfile(io.BytesIO(grey_profile())),
    ImageCms.createProfile("sRGB"),
    outputMode="RGB",
  )
  assert np.mean(np.asarray(expected)) > np.mean(np.asarray(grey)) + 30
  decoded = pixels.decode(png, "PNG", bits=12)
  np.testing.assert_array_equal(decoded.image, expected)


def test_statistics_are_those_of_the_scaled_values(tmp_path):
  source = open_folder(tmp_path, {"colour.png": deep_png(3)})
  scaled = (VALUES[::4, ::4, :3] >> 4) / 255  # Every fourth, as documented.
  measured = source.dataset.statistics
  np.testing.assert_allclose(measured.mean, scaled.mean((0, 1)), atol=1e-4)
  np.testing.assert_allclose(measured.std, scaled.std((0, 1)), atol=1e-4)


def test_one_large_value_sets_the_depth_of_all_images(tmp_path):
  bright = np.full((9, 9), 2**14 - 1, np.uint16)
  files = DEEP | {"bright.png": encoded(PIL.Image.fromarray(bright), "PNG")}
  source = open_folder(tmp_path, files)
  assert "scaled from 14 bits" in " ".join(source.notes)
  seen = parsed(source)
  np.testing.assert_array_equal(seen["grey.tif"][..., 0], VALUES[..., 0] >> 6)
  assert np.all(seen["bright.png"] == 255)


def test_values_of_few_bits_are_not_stretched(tmp_path):
  masks = PIL.Image.fromarray(VALUES[..., 0] % 20)
  source = open_folder(tmp_path, {"mask.png": encoded(masks, "PNG")})
  assert "scaled from 8 bits" in " ".join(source.notes)
  np.testing.assert_array_equal(
    parsed(source)["mask.png"][..., 0], VALUES[..., 0] % 20
  )


def test_white_may_be_zero(tmp_path):
  tiff = encoded(GREY, "TIFF", tiffinfo={262: 0})
  source = open_folder(tmp_path, {"negative.tif": tiff})
  np.testing.assert_array_equal(
    parsed(source)["negative.tif"][..., 0], (4095 - VALUES[..., 0]) >> 4
  )


@pytest.mark.parametrize(
  ("image", "reason"),
  [
    (VALUES[..., 0].astype(np.float32), "nothing says what is white in mode F"),
    (VALUES[..., 0].astype(np.int32) - 2048, "values from -20"),
    (VALUES[..., 0].astype(np.int32) << 8, "values from "),
  ],
)
def test_values_without_a_scale_are_named(tmp_path, image, reason):
  tiff = encoded(PIL.Image.fromarray(image), "TIFF")
  root = fill(tmp_path / "root", {"a.jpg": photo(), "b.tif": tiff})
  ((path, found),) = load(root, max_broken=0.5).broken
  assert path == "b.tif"
  assert found.startswith(reason)
