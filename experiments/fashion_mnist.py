"""ResNet-18 with a 3x3 stem on the 60,000 pictures of Fashion-MNIST.

    python -m byol_jax.main --config=experiments/fashion_mnist.py

Expected: no published figure. Minutes on a GPU. tfds downloads the data.
"""

from byol_jax.config import small_grey_config


def get_config():
  config = small_grey_config()
  config.data.dataset = "fashion_mnist"
  for view in (config.augment.view1, config.augment.view2):
    view.flip_prob = 0.5  # Clothes mean the same mirrored; digits do not.
  return config
