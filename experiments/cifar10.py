"""ResNet-18 with a 3x3 stem on CIFAR-10.

    python -m byol_jax.main --config=experiments/cifar10.py

Theirs, as we have run neither preset to the end:

- without a preset, LARS for 1000 epochs of batches of 256: solo-learn reports 92.6%
  for its online classifier. There, the rate of a layer is the smaller of LARS' and
  the schedule's, here it is their product.
- `cifar10.py:sgd`, for 200 epochs of batches of 128: lightly reports 86.9% by 200
  nearest neighbours, which this preset evaluates, too; the best of all epochs. There,
  biases and batch norms decay as well.

A run takes a few hours on one GPU. tfds downloads the data.
"""

from byol_jax.config import cifar_config


def get_config(preset="lars"):
  config = cifar_config(preset)
  config.data.dataset = "cifar10"
  if preset == "sgd":
    config.evaluation.expected = ("knn/top1=0.869",)
  return config
