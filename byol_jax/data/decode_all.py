"""Decodes a whole split into memory."""

import tensorflow as tf

from byol_jax.data import diagnosis, images, loading, records, stream
from byol_jax.data.images import Images
from byol_jax.data.tensorflow_setup import without_autograph


@without_autograph
def decode(
  source: loading.Source,
  split: str,
  channels: int,
  rows: range | None = None,
  *,
  multi_label: bool = False,
) -> Images:
  """Returns the decoded examples of a split, in the order of the files.

  Args:
    source: the data set.
    split: tfds split expression.
    channels: of the images: 3, or 1 for grey.
    rows: examples of the split to decode, at least one; by default all.
    multi_label: whether to return the classes of multi-label images, see
      `records.parser`.

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
  pairs = diagnosis.explain_errors(stream.iterate(examples), source, split)
  decoded, labels = zip(*pairs, strict=True)
  return images.pack(decoded, labels)
