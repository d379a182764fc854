"""Writes folders of images for tests, opens them and reads their records."""

import io
import pathlib
import struct
import zlib

import PIL.Image
import pytest
import tensorflow_datasets as tfds
from sklearn import datasets as sklearn_datasets

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import image_folder

PHOTOS = [
  PIL.Image.fromarray(photo).resize((128, 85))
  for photo in sklearn_datasets.load_sample_images().images
]


def encoded(image, file_format, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, file_format, **options)
  return file.getvalue()


def photo(i=0, file_format="JPEG", mode="RGB", **options) -> bytes:
  return encoded(PHOTOS[i].convert(mode), file_format, **options)


def insert_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
  """Puts a chunk behind the header of a PNG, which takes 33 bytes."""
  body = name + content
  chunk = struct.pack(">I", len(content)) + body
  return png[:33] + chunk + struct.pack(">I", zlib.crc32(body)) + png[33:]


def tree(*names) -> dict[str, bytes]:
  """Small images, each of its own colour."""
  return {
    name: encoded(PIL.Image.new("RGB", (8, 8), (i, 0, 0)), "PNG")
    for i, name in enumerate(names)
  }


def fill(root: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
  for name, data in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return root


def options(
  root, *, data_dir=None, labels="folders", test_share=0.0, max_broken=0.0
) -> schema.DataConfig:
  return schema.DataConfig(
    data_dir=str(data_dir or root.parent / "data"),
    labels=labels,
    test_share=test_share,
    max_broken=max_broken,
  )


def load(root, **settings) -> image_folder.ImageFolder:
  return image_folder.load(str(root), options(root, **settings))


def load_error(*args, **settings) -> str:
  with pytest.raises(errors.UserError) as info:
    load(*args, **settings)
  message = str(info.value)
  assert "\n" not in message
  return message


def read(folder, split="train") -> list[dict]:
  dataset = folder.builder.as_dataset(
    split=split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  return list(tfds.as_numpy(dataset))


def stored(folder, split="train") -> dict[str, bytes]:
  examples = read(folder, split)
  images = {example["file"].decode(): example["image"] for example in examples}
  assert len(images) == len(examples)  # Each file once.
  return images


def labels_of(folder, split="train") -> dict[str, str]:
  names = folder.builder.info.features["label"].names
  return {
    example["file"].decode(): names[example["label"]]
    for example in read(folder, split)
  }


def split_names(folder) -> set[str]:
  return set(folder.builder.info.splits)


def prepared(data_dir) -> list[pathlib.Path]:
  """What a later opening could take for a data set."""
  return sorted(pathlib.Path(data_dir).glob("image_folder/*/[0-9]*"))
