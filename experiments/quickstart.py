"""BYOL on 4,000 real digits that ship with a package, on a laptop's CPU.

python -m byol_jax.main --config=experiments/quickstart.py
"""

from byol_jax.config import default_config


def get_config():
  config = default_config()
  config.data.dataset = "mnist_digits"
  config.data.image_size = 28
  config.data.eval_crop = 1.0
  for view in (config.augment.view1, config.augment.view2):
    view.crop_area = (0.5, 1.0)
    view.flip_prob = 0.0
    view.saturation = 0.0
    view.hue = 0.0
    view.grayscale_prob = 0.0
    view.blur_prob = 0.0
    view.solarize_prob = 0.0
  config.model.encoder.name = "ResNet18"
  config.model.encoder.width = 0.25
  config.model.encoder.stem = "cifar"
  config.model.encoder.pooling = "flatten"
  config.model.projector.hidden_size = 256
  config.model.projector.output_size = 64
  config.model.predictor.hidden_size = 256
  config.ema.base = 0.99
  config.optimizer.name = "sgd"
  config.optimizer.base_learning_rate = 0.3
  config.optimizer.weight_decay = 1e-6
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 256
  config.train.epochs = 6
  return config
