"""ResNet-18 with a 3x3 stem on CIFAR-10.

    python -m byol_jax.main --config=experiments/cifar10.py

solo-learn reports 92.6% for its online classifier with these hyper-parameters
(LARS at 1.0 x batch/256, trust coefficient 0.02, tau from 0.99, 1000 epochs).
We have not run this experiment to the end. It takes a few hours on one GPU.
tfds downloads the data.
"""

from byol_jax.config import default_config


def get_config():
  config = default_config()
  config.data.dataset = "cifar10"
  config.data.image_size = 32
  config.data.mean = ()
  config.data.std = ()
  config.data.eval_crop = 1.0
  for view in (config.augment.view1, config.augment.view2):
    view.blur_prob = 0.0  # There is little to blur at 32 pixels.
  config.model.encoder.name = "ResNet18"
  config.model.encoder.stem = "cifar"
  config.ema.base = 0.99
  config.optimizer.base_learning_rate = 1.0
  config.optimizer.weight_decay = 1e-5
  config.optimizer.trust_coefficient = 0.02
  config.train.batch_size = 256
  return config
