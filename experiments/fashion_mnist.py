"""ResNet-18 with a 3x3 stem on the 60,000 images of Fashion-MNIST.

    python -m byol_jax.main --config=experiments/fashion_mnist.py

There is no published number of BYOL on this data set. The experiment takes minutes
on a GPU. tfds downloads the data.

The preset `:short` is for two cores. It runs six of the seven protocols. Ours, the
mean of three seeds: 0.837 by kNN, 0.867 by a linear classifier; see docs/results.md,
which also has kNN after ten epochs of the longer run.

The preset `:compared` is what results.md compares with lightly's BYOL, with supervised
training and with other encoders: 0.853 by kNN, 0.877 by a linear classifier, the mean of
three seeds.
"""

from byol_jax.config import preset as find
from byol_jax.config import small_grey_config


def get_config(preset=""):
  config = small_grey_config()
  config.data.dataset = "fashion_mnist"
  for view in (config.augment.view1, config.augment.view2):
    view.flip_prob = 0.5  # Mirrored clothes keep their class; digits do not.
  config.evaluation.view.flip_prob = 0.5
  find(PRESETS, preset)(config)
  return config


def _short(config):
  """One epoch of a small network, and six protocols."""
  _train_briefly(config)
  config.model.encoder.name = "ResNet10"
  config.train.epochs = 1
  evaluation = config.evaluation
  evaluation.expected = ("knn/top1=0.837", "linear/top1=0.867")
  evaluation.protocols = (
    "knn",
    "linear",
    "logistic",
    "semi_supervised",
    "finetune",
    "geometry",
  )
  evaluation.train_split = "train[:12000]"
  evaluation.linear.epochs = 20.0
  evaluation.semi_supervised.epochs = (20.0,)
  evaluation.semi_supervised.batch_size = 64
  evaluation.finetune.rate_range = (0.01, 0.04)
  evaluation.finetune.steps = 600
  evaluation.finetune.batch_size = 64


def _compared(config):
  """Two epochs that other programs, encoders and labels are compared with."""
  _train_briefly(config)
  config.data.image_size = 20
  config.train.epochs = 2
  evaluation = config.evaluation
  evaluation.expected = ("knn/top1=0.853", "linear/top1=0.877")
  evaluation.linear.epochs = 20.0
  evaluation.linear.batch_size = 256
  # From an untrained encoder, it is supervised training with as many images.
  evaluation.finetune.rate_range = (0.04, 0.04)
  evaluation.finetune.rate_count = 1
  evaluation.finetune.steps = 1875
  evaluation.finetune.batch_size = 64


def _train_briefly(config):
  """A quarter of the width, with the tau, rate and batch of quickstart.py."""
  config.model.encoder.width = 0.25
  config.ema.base = 0.9
  config.optimizer.base_learning_rate = 0.2
  config.optimizer.warmup_epochs = 0.1
  config.train.batch_size = 64


PRESETS = {
  "": lambda config: None,
  "short": _short,
  "compared": _compared,
}
