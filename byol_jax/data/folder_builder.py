"""Writes the images of a folder as tfds records."""

import io
import os

import numpy as np
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.data.folder_inspect import Image, read, to_rgb
from byol_jax.data.folder_scan import valid_unicode
from byol_jax.data.thread_map import thread_map


class FolderBuilder(tfds.core.GeneratorBasedBuilder):
  """Writes the records of one folder; reading them does not need it."""

  name = "image_folder"  # Each folder is a configuration of it.
  VERSION = tfds.core.Version("1.0.0")

  def __init__(self, root, data_dir, config, classes, splits, broken):
    self._root, self._classes, self._splits = root, classes, splits
    mean, square = np.mean([x.moments for x in splits["train"]], axis=0)
    std = np.sqrt(np.maximum(square - np.square(mean), 1e-6))  # At least 1e-3.
    sides = [image.side for images in splits.values() for image in images]
    self._metadata = tfds.core.MetadataDict(
      broken=broken,
      mean=mean.round(4).tolist(),
      std=std.round(4).tolist(),
      side=int(np.median(sides)),
    )
    config = tfds.core.BuilderConfig(name=config)
    super().__init__(data_dir=data_dir, config=config)

  def _create_builder_config(self, builder_config, version):
    del version
    return builder_config  # tfds would warn that the class does not list it.

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "file": tfds.features.Text(),
    }
    if self._classes:
      features["label"] = tfds.features.ClassLabel(names=self._classes)
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"Images from {valid_unicode(self._root)}.",
      features=tfds.features.FeaturesDict(features),
      metadata=self._metadata,
    )

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(split, images)
      for split, images in self._splits.items()
    }

  def _generate_examples(self, split, images):
    title = f"Writing {os.path.basename(self._root)} ({split})"
    for image, data in thread_map(self._stored, images, title):
      example = {"image": data, "file": valid_unicode(image.file.path)}
      if self._classes:
        example["label"] = image.file.label
      yield os.fsencode(image.file.path), example

  def _stored(self, image: Image) -> bytes:
    data = read(self._root, image.file)
    if image.as_it_is:
      return data
    png = io.BytesIO()
    to_rgb(data).save(png, "PNG")
    return png.getvalue()


def write(builder: FolderBuilder, root: str, data_dir: str) -> None:
  """Writes the records; `UserError` if that fails.

  tfds writes into a folder of another name and renames it at the end, so
  nothing half-done is ever taken for a data set.
  """
  path = builder.data_dir
  try:
    builder.download_and_prepare(file_format=tfds.core.FileFormat.TFRECORD)
  except Exception as error:
    if os.path.isdir(path):
      return  # Another process was faster.
    reason = " ".join(str(error).split())[-160:]  # Starts with long paths.
    raise errors.UserError(
      f"{root} could not be prepared in {data_dir}"
      f" ({type(error).__name__}: {reason}); choose a data.data_dir that can be"
      " written and has room for all images."
    ) from error
