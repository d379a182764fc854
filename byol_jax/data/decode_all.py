"""Decodes a whole split into memory."""

from collections.abc import Callable

import tensorflow as tf

from byol_jax.data import diagnosis, images, loading, records, stream
from byol_jax.data.images import Images, Shape
from byol_jax.data.tensorflow_setup import without_autograph


@without_autograph
def decode(
  source: loading.Source,
  split: str,
  channels: int,
  rows: range | None = None,
  *,
  multi_label: bool = False,
  check: Callable[[Shape, int], None] = images.accept,
) -> Images:
  """Returns the decoded examples of a split, in the order of the files.

  Args:
    source: the data set.
    split: tfds split expression.
    channels: of the images: 3, or 1 for grey.
    rows: examples of the split to decode, at least one; by default all.
    multi_label: whether to return the classes of multi-label images, see
      `records.parser`.
    check: is called with the shape of the array, as far as it is known, and the bytes
      of a value before the array is made: at the first image and whenever one is larger than all
      before.

  Raises:
    UserError: if there is no such split, or a file cannot be read.
  """
  files = records.split_files(source, split)
  if rows is not None:
    files = records.trim(files, rows)
  examples = records.read_in_order(files).map(
    records.parser(source, channels, multi_label=multi_label),
    tf.data.AUTOTUNE,
  )
  count, height, width = records.num_records(files), 0, 0
  decoded, labels = [], []
  pairs = diagnosis.explain_errors(stream.iterate(examples), source, split)
  for image, label in pairs:
    if image.shape[0] > height or image.shape[1] > width:
      height, width = max(height, image.shape[0]), max(width, image.shape[1])
      check((count, height, width, channels), image.dtype.itemsize)
    decoded.append(image)
    labels.append(label)
  return images.pack(decoded, labels)
