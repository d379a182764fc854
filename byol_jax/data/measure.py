"""Measures the statistics of a data set for which none are known."""

import tensorflow as tf

from byol_jax.data import diagnosis, loading, records, registry, statistics

# The third decimal of the statistics settles at about a thousand images.
_IMAGES = 1000


def measure_statistics(source: loading.Source) -> registry.Statistics:
  """Returns statistics of the first 1000 images of the pretraining split.

  Raises:
    UserError: if a file cannot be read.
  """
  parse = records.parser(source)
  split = source.dataset.pretrain
  examples = records.read_in_order(records.split_files(source, split))
  images = examples.take(_IMAGES).map(
    lambda record: parse(record)[0], tf.data.AUTOTUNE
  )
  moments, sides = [], []
  reader = images.as_numpy_iterator()
  for image in diagnosis.explain_errors(reader, source, split):
    moments.append(statistics.channel_moments(image))
    sides.append(min(image.shape[:2]))
  return statistics.summarize(moments, sides)
