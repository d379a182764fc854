"""BYOL with the settings of a small PyTorch implementation, on a folder of images.

    python -m byol_jax.main --config=experiments/small_pytorch.py --config.data.root=DIR

These are the defaults of `BYOL(input_size, hidden_size, output_size, ...)` and the
training of the README in github.com/markpesic/byol: SGD at a constant rate, without
warm-up, and a constant tau. docs/variants.md says which key each of its options
is. The preset `small_pytorch.py:closed_form` has the best linear predictor and no
moving average. The augmentations are the paper's.
"""

from byol_jax.config import default_config
from byol_jax.config import preset as find

# The kind of predictor and tau.
PRESETS = {"mlp": ("mlp", 0.996), "closed_form": ("closed_form", 0.0)}


def get_config(preset="mlp"):
  config = default_config()
  config.data.dataset = "folder"
  config.data.image_size = 0
  # torchvision's ResNets, with its normalisation, which the default is.
  config.model.encoder.padding = "torch"
  config.model.predictor.kind, config.ema.base = find(PRESETS, preset)
  config.ema.schedule = "constant"
  config.optimizer.name = "sgd"
  config.optimizer.schedule = "constant"
  config.optimizer.base_learning_rate = 0.03
  config.optimizer.weight_decay = 1.5e-4
  config.optimizer.warmup_epochs = 0.0
  config.train.batch_size = 128
  config.train.epochs = 30
  config.evaluation.protocols = ("retrieval", "knn", "linear")
  config.evaluation.linear.crops = "centre"  # Minutes instead of hours.
  return config
