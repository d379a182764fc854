"""Copies of data sets with smaller images, and JPEGs at a reduced scale."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import copies, decode_all, loading, records, split_contents
from tests import input_cases


def options(tmp_path, **values):
  values = {"copy_side": 16, "data_dir": str(tmp_path / "data"), **values}
  return schema.DataConfig(**values)


def quiet(line):
  del line


def smooth_image(height, width, channels=3):
  """An image whose values change slowly, so that JPEG and resizing keep them."""
  y, x = np.mgrid[:height, :width]
  planes = [255 * y / height, 255 * x / width, 255 * (x + y) / (height + width)]
  return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def images_of(source, split="train", channels=3):
  images = decode_all.decode(source, split, channels)
  return [
    pixels[:height, :width]
    for pixels, (height, width) in zip(images.pixels, images.sizes, strict=True)
  ]


@pytest.mark.parametrize("copy_format", ["jpeg", "raw"])
def test_a_copy_has_the_same_examples_with_smaller_images(
  source, tmp_path, copy_format
):
  copy = copies.open_copy(
    source, options(tmp_path, copy_format=copy_format), quiet
  )
  split = source.dataset.pretrain
  assert copy.num_examples(split) == input_cases.SIZE
  assert split_contents.example_ids(copy, split) == (
    split_contents.example_ids(source, split)
  )
  originals = decode_all.decode(source, split, 3)
  smaller = decode_all.decode(copy, split, 3)
  np.testing.assert_array_equal(smaller.labels, originals.labels)
  assert {tuple(size) for size in smaller.sizes} == {(19, 16)}
  if copy_format == "raw":
    expected = PIL.Image.fromarray(originals.pixels[0]).resize(
      (16, 19), PIL.Image.Resampling.BICUBIC, reducing_gap=3.0
    )
    np.testing.assert_array_equal(smaller.pixels[0], expected)


def test_a_copy_keeps_what_is_seen(tmp_path):
  store(tmp_path / "original", [smooth_image(60, 80), smooth_image(12, 9)])
  source = loading.load("tfds:pictures", str(tmp_path / "original"))
  original = images_of(source)
  for copy_format, most in (("jpeg", 8), ("raw", 3)):
    copy = copies.open_copy(
      source, options(tmp_path, copy_format=copy_format), quiet
    )
    for before, after in zip(original, images_of(copy), strict=True):
      if min(before.shape[:2]) <= 16:  # Unchanged, in every format.
        np.testing.assert_array_equal(after, before)
        continue
      assert after.shape == (16, 21, 3)
      expected = smooth_image(16, 21).astype(int)
      # Means over blocks of 60/16 pixels lie half a block further on.
      shift = np.abs(after - expected).max()
      assert shift <= 255 / 16 / 2 + most


def store(folder, images, **features):
  examples = [(i, {"image": image}) for i, image in enumerate(images)]
  channels = images[0].shape[-1]
  tfds.dataset_builders.store_as_tfds_dataset(
    name="pictures",
    version="1.0.0",
    data_dir=folder,
    features=tfds.features.FeaturesDict(
      {"image": tfds.features.Image(shape=(None, None, channels), **features)}
    ),
    split_datasets={"train": examples, "test": examples[:1]},
  )


@pytest.mark.parametrize("copy_format", ["jpeg", "raw"])
def test_grey_images_stay_grey_and_are_read_in_colour_as_well(
  tmp_path, copy_format
):
  store(tmp_path / "original", [smooth_image(40, 40, 1)])
  source = loading.load("tfds:pictures", str(tmp_path / "original"))
  copy = copies.open_copy(
    source, options(tmp_path, copy_format=copy_format), quiet
  )
  (grey,) = images_of(copy, channels=1)
  (colour,) = images_of(copy, channels=3)
  assert grey.shape == (16, 16, 1)
  np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=-1))


def test_a_copy_is_written_once_and_foretold(source, tmp_path):
  said = []
  for _ in range(2):
    copies.open_copy(source, options(tmp_path), said.append)
  (line,) = said
  assert line.startswith(
    "Copying 97 images of cifar10 with short sides of at most"
  )
  assert "GB and" in line


def test_another_side_or_data_set_is_another_copy(source, tmp_path):
  for side in (8, 16):
    copies.open_copy(source, options(tmp_path, copy_side=side), quiet)
  store(tmp_path / "original", [smooth_image(60, 80)])
  other = loading.load("tfds:pictures", str(tmp_path / "original"))
  copies.open_copy(other, options(tmp_path), quiet)
  assert len(list((tmp_path / "data" / "copies").iterdir())) == 3


def test_an_interrupted_copy_goes_on_with_the_next_file(
  source, tmp_path, monkeypatch
):
  """What was written stays, and nothing incomplete looks like a data set."""
  write, written = copies._write, []

  def stop_after_two(records_, folder, path):
    if len(written) == 2:
      raise KeyboardInterrupt
    written.append(path)
    write(records_, folder, path)

  monkeypatch.setattr(copies, "_write", stop_after_two)
  with pytest.raises(KeyboardInterrupt):
    copies.open_copy(source, options(tmp_path), quiet)
  monkeypatch.setattr(
    copies, "_write", lambda *a: (written.append(a[2]), write(*a))
  )
  copy = copies.open_copy(source, options(tmp_path), quiet)
  assert len(set(written)) == len(written) == input_cases.SHARDS
  assert len(images_of(copy)) == input_cases.SIZE


def test_a_disk_without_room_is_one_line(source, tmp_path, monkeypatch):
  usage = copies.shutil.disk_usage(tmp_path)._replace(free=10)
  monkeypatch.setattr(copies.shutil, "disk_usage", lambda _: usage)
  with pytest.raises(errors.UserError, match=r"data\.copy_side=16 needs about"):
    copies.open_copy(source, options(tmp_path), quiet)


def test_a_folder_that_cannot_be_written_is_one_line(source, tmp_path):
  (tmp_path / "data").write_text("a file")
  with pytest.raises(errors.UserError, match="cannot be written") as caught:
    copies.open_copy(source, options(tmp_path), quiet)
  assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(copied, tmp_path):
  source, files = copied
  files[1].write_bytes(files[1].read_bytes()[:-20])
  with pytest.raises(errors.UserError, match=files[1].name):
    copies.open_copy(source, options(tmp_path), quiet)


def test_batches_come_from_the_copy(source, tmp_path):
  copy = copies.open_copy(source, options(tmp_path, copy_format="raw"), quiet)
  (batch,) = input_cases.train_batches(copy, 1)
  assert batch["view1"].shape == (10, 16, 16, 3)


def jpeg_of(image) -> bytes:
  file = io.BytesIO()
  PIL.Image.fromarray(image).save(file, "JPEG", quality=95)
  return file.getvalue()


@pytest.mark.parametrize(
  ("decode_side", "size"),
  [
    (0, (160, 240)),
    (100, (160, 240)),
    (80, (80, 120)),
    (20, (20, 30)),
    (1, (20, 30)),
  ],
)
def test_jpegs_are_decoded_as_small_as_the_side_allows(
  source, decode_side, size
):
  image = smooth_image(160, 240)
  parse = records.parser(source, decode_side=decode_side)
  record = example_with(source, jpeg_of(image))
  decoded = parse(tf.constant(record))[0].numpy()
  assert decoded.shape == (*size, 3)
  assert (
    np.abs(decoded.mean((0, 1)) - image.mean((0, 1))).max() < 2
  )  # JPEG rounds colours.


def test_other_formats_are_decoded_whole(source):
  image = smooth_image(40, 60)
  file = io.BytesIO()
  PIL.Image.fromarray(image).save(file, "PNG")
  parse = records.parser(source, decode_side=1)
  decoded = parse(tf.constant(example_with(source, file.getvalue())))[0]
  np.testing.assert_array_equal(decoded, image)


def example_with(source, data: bytes) -> bytes:
  """A record of a data set with another image."""
  files = records.split_files(source, source.dataset.pretrain)
  record = next(records.read_in_order(files).as_numpy_iterator())
  example = tf.train.Example.FromString(record)
  example.features.feature["image"].bytes_list.value[0] = data
  return example.SerializeToString()


def test_reduced_decoding_reaches_the_views(source, monkeypatch):
  asked = []
  parser = records.parser

  def recording(*args, decode_side=0, **kwargs):
    asked.append(decode_side)
    return parser(*args, decode_side=decode_side, **kwargs)

  monkeypatch.setattr(records, "parser", recording)
  input_cases.train_batches(source, 1, decode_side=64)
  assert asked == [64]
