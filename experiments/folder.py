"""BYOL on a folder of your own images, with labels or without.

    python -m byol_jax.main --config=experiments/folder.py --config.data.root=DIR

This trains a ResNet-18 on your images. results.json and figures/neighbours.png
show how good it is. The program takes image size, stem and normalisation from
the images and prints them. 100,000 images take hours on a GPU, so look at the
views first, with --mode=views.
"""

from byol_jax.config import default_config


def get_config():
  config = default_config()
  config.data.dataset = "folder"
  config.data.image_size = 0
  config.data.mean = ()
  config.data.std = ()
  config.model.encoder.name = "ResNet18"
  config.model.encoder.stem = "auto"
  config.model.projector.hidden_size = 1024
  config.model.predictor.hidden_size = 1024
  # The paper's 0.996 is for a million updates of 4096 images. Short runs with
  # small batches need a target that follows faster (solo-learn's settings for
  # CIFAR).
  config.ema.base = 0.99
  config.optimizer.name = "sgd"
  config.optimizer.base_learning_rate = 0.1
  config.optimizer.weight_decay = 1e-6
  config.train.batch_size = 256
  config.train.epochs = 100
  config.evaluation.protocols = ("retrieval", "knn", "linear")
  config.evaluation.linear.crops = "centre"  # Minutes instead of hours.
  return config
