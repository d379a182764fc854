"""ResNet-18 with a 3x3 stem on CIFAR-100, with the presets of cifar10.py.

    python -m byol_jax.main --config=experiments/cifar100.py

Theirs, as we have run neither preset to the end: without a preset, LARS for 1000
epochs, solo-learn reports 70.5% for its online classifier. There is no published
number for `cifar100.py:sgd`.

A run takes a few hours on one GPU. tfds downloads the data.
"""

from byol_jax.config import cifar_config


def get_config(preset="lars"):
  config = cifar_config(preset)
  config.data.dataset = "cifar100"
  return config
