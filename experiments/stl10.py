"""ResNet-18 on the 105,000 unlabelled and training images of STL-10.

    python -m byol_jax.main --config=experiments/stl10.py

Theirs: sthalles/PyTorch-BYOL reports 75.2% for logistic regression after 80 epochs
of SGD with this batch, rate, decay and tau, and these heads. There, rate and tau are
constant, and both views have stronger jitter, are always blurred and never
solarised. We have not run this experiment to the end. It takes about a day on one
GPU. tfds downloads the data.
"""

from byol_jax.config import default_config


def get_config():
  config = default_config()
  config.data.dataset = "stl10"
  config.data.image_size = 96
  config.data.mean = ()
  config.data.std = ()
  config.data.eval_crop = 1.0
  config.model.encoder.name = "ResNet18"
  config.model.projector.hidden_size = 512
  config.model.projector.output_size = 128
  config.model.predictor.hidden_size = 512
  config.optimizer.name = "sgd"
  config.optimizer.base_learning_rate = 0.12  # 0.03 at batch 64.
  config.optimizer.weight_decay = 4e-4
  config.optimizer.warmup_epochs = 1.0
  config.train.batch_size = 64
  config.train.epochs = 80
  return config
