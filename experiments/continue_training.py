"""A trained encoder, trained on with a folder of your own images.

    python -m byol_jax.main --config=experiments/continue_training.py \\
      --config.data.root=DIR --config.model.encoder.init_from=FILE

FILE is an encoder of --mode=export, a workdir, a ResNet of torchvision or timm,
or a checkpoint of deepmind-research/byol. The architecture and the normalisation
are those of the encoder, and the image size comes from the images. The heads are
new, so the loss begins near that of an untrained network. Compare the result
with --mode=evaluate --encoder of the encoder that the run started from.
"""

from byol_jax.config import default_config


def get_config():
  config = default_config()
  config.data.dataset = "folder"
  config.data.image_size = 0
  config.data.mean = ()
  config.data.std = ()
  config.model.encoder.name = "auto"
  # Heads, target, rate and batch are those of experiments/folder.py.
  config.model.projector.hidden_size = 1024
  config.model.predictor.hidden_size = 1024
  config.ema.base = 0.99
  config.optimizer.name = "sgd"
  config.optimizer.base_learning_rate = 0.1
  config.optimizer.weight_decay = 1e-6
  # Our choice: the rate rises while the new heads learn what the encoder gives,
  # and the encoder needs fewer epochs than a new one.
  config.optimizer.warmup_epochs = 2.0
  config.train.batch_size = 256
  config.train.epochs = 20
  config.evaluation.protocols = ("retrieval", "knn", "linear")
  config.evaluation.linear.crops = "centre"  # Minutes instead of hours.
  return config
