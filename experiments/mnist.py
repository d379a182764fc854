"""ResNet-18 with a 3x3 stem on the 60,000 digits of MNIST.

    python -m byol_jax.main --config=experiments/mnist.py

Expected: no published figure; the 4,000 digits of quickstart.py are the part
that has been run. Minutes on a GPU. tfds downloads the data.
"""

from byol_jax.config import small_grey_config


def get_config():
  config = small_grey_config()
  config.data.dataset = "mnist"
  return config
