"""The teaching flow: 8 grey digits -> 224 pixels -> ResNet-18 -> 512 -> 128.

    python -m byol_jax.main --config=experiments/mnist.py

Two views, 224x224x1, of each 28x28 digit; ResNet-18 makes 512 numbers of each;
the projector 128 of those, the predictor 128 of these, and the linear
classifier 10 scores: the table at the start shows it. The digits ship with a
package.

Expected: a demonstration of shapes and losses, not of accuracy: 40 steps of 8
images, a few minutes on a CPU. To learn digits, run quickstart.py; for all
60,000, --config.data.dataset=mnist, which tfds downloads.
"""

from byol_jax.config import small_grey_config


def get_config():
  config = small_grey_config()
  config.data.dataset = "mnist_digits"
  config.data.image_size = 224
  config.data.channels = 1
  config.model.encoder.stem = "imagenet"
  config.model.encoder.pooling = "mean"
  config.model.projector.hidden_size = 512
  config.model.projector.output_size = 128
  config.model.predictor.hidden_size = 512
  config.train.batch_size = 8
  config.train.steps = 40
  config.optimizer.warmup_epochs = 0.02  # 10 steps.
  config.evaluation.protocols = ()
  return config
