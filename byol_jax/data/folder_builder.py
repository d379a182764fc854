"""Writes the images of a folder as tfds records."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.data import pixels, statistics
from byol_jax.data.folder_inspect import BrokenFile, Image, read
from byol_jax.data.folder_layout import TRAINED
from byol_jax.data.folder_scan import File, valid_unicode
from byol_jax.data.thread_map import thread_map

# Our choice: two sets of images agree by chance once in 2**64.
_FINGERPRINT_DIGITS = 16


class Contents(NamedTuple):
  """What the records of a folder are made from.

  Attributes:
    root: absolute path of the folder.
    classes: names of the classes; empty if there are no labels.
    splits: images of each split, of which train has at least one. Those with
      the ending _unlabelled have no labels.
    broken: files that are left out.
    is_multi_label: whether an image may have several classes; labels are tuples.
  """

  root: str
  classes: Sequence[str]
  splits: Mapping[str, Sequence[Image]]
  broken: Sequence[BrokenFile]
  is_multi_label: bool = False

  @property
  def images(self) -> list[Image]:
    """The images of all splits."""
    return [image for split in self.splits.values() for image in split]

  @property
  def has_turned_images(self) -> bool:
    """Whether any image is to be turned after decoding."""
    return any(image.orientation > 1 for image in self.images)


def write(contents: Contents, data_dir: str, config_name: str) -> None:
  """Writes the records of a folder.

  tfds writes into a temporary folder and renames it at the end, so an
  interrupted preparation leaves nothing that looks like a data set.

  Args:
    contents: the images.
    data_dir: absolute folder of tfds data sets; is created.
    config_name: name of the configuration, which no other contents have.

  Raises:
    UserError: if the records cannot be written or an image cannot be read any
      more.
  """
  builder = FolderBuilder(contents, data_dir, config_name)
  try:
    builder.download_and_prepare(file_format=tfds.core.FileFormat.TFRECORD)
  except Exception as error:
    if os.path.isdir(builder.data_dir):
      return  # Another process has written the records in the meantime.
    # The message starts with long paths, so its end says more.
    reason = " ".join(str(error).split())[-160:]
    raise errors.UserError(
      f"{contents.root} could not be prepared in {data_dir}"
      f" ({type(error).__name__}: {reason}); choose a data.data_dir that can be"
      " written and has room for all images."
    ) from error


class FolderBuilder(tfds.core.GeneratorBasedBuilder):
  """Writes the records of one folder, which can be read without this class.

  Each folder is a configuration of the data set image_folder.
  """

  name = "image_folder"
  VERSION = tfds.core.Version("1.0.0")

  def __init__(self, contents: Contents, data_dir: str, config_name: str):
    self._contents = contents
    config = tfds.core.BuilderConfig(name=config_name)
    super().__init__(data_dir=data_dir, config=config)

  def _create_builder_config(self, builder_config, version):
    del version
    return builder_config  # tfds would warn that the class does not list it.

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "file": tfds.features.Text(),
    }
    if self._contents.classes:
      label = tfds.features.ClassLabel(names=self._contents.classes)
      several = self._contents.is_multi_label
      features["label"] = tfds.features.Sequence(label) if several else label
    if self._contents.has_turned_images:
      features[pixels.ORIENTATION] = tfds.features.Scalar(np.int32)
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"Images from {valid_unicode(self._contents.root)}.",
      features=tfds.features.FeaturesDict(features),
      metadata=_metadata(self._contents),
    )

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(split, images)
      for split, images in self._contents.splits.items()
    }

  def _generate_examples(self, split, images):
    title = f"Writing {os.path.basename(self._contents.root)} ({split})"
    for image, data in thread_map(self._encode, images, title):
      example: dict[str, Any] = {
        "image": data,
        "file": valid_unicode(image.file.path),
      }
      if self._contents.classes:
        example["label"] = self._label(image.file)
      if self._contents.has_turned_images:
        example[pixels.ORIENTATION] = image.orientation
      yield os.fsencode(image.file.path), example

  def _label(self, file: File) -> str | int | list[str]:
    """Returns the label of an image as tfds takes it; it may have none."""
    if self._contents.is_multi_label:
      return list(file.label)
    return str(file.label) if file.label != "" else -1

  def _encode(self, image: Image) -> bytes:
    data, file_format, _ = read(self._contents.root, image.file)
    if image.is_stored_unchanged:
      return data
    return pixels.encode(pixels.decode(data, file_format, image.bits or 16))


def _metadata(contents: Contents) -> tfds.core.MetadataDict:
  """Returns what is stored beside the records, for `image_folder` to read."""
  measured = statistics.summarize(
    [
      image.moments
      for split in TRAINED
      for image in contents.splits.get(split, ())
    ],
    [image.side for image in contents.images],
  )
  return tfds.core.MetadataDict(
    broken=contents.broken,
    mean=measured.mean,
    std=measured.std,
    side=measured.side,
    bits=max(image.bits for image in contents.images),
    fingerprint=_fingerprint(contents.splits),
  )


def _fingerprint(splits: Mapping[str, Sequence[Image]]) -> str:
  """Returns a checksum of images: paths below the root, bytes, splits, labels."""
  total = hashlib.sha256()
  for split, image in sorted(
    ((split, image) for split, images in splits.items() for image in images),
    key=lambda found: found[1].file.path,
  ):
    use = repr((image.file.path, split, image.file.label))
    total.update(hashlib.sha256(use.encode()).digest() + image.digest)
  return total.hexdigest()[:_FINGERPRINT_DIGITS]
