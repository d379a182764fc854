"""Shows all shapes: 8 grey digits -> 224 pixels -> ResNet-18 -> 512 -> 128.

    python -m byol_jax.main --config=experiments/mnist.py

The pipeline makes two views of 224x224x1 from each 28x28 digit. ResNet-18 maps
a view to 512 features, the projector maps these to 128 and the predictor maps
those to 128. The linear classifier maps the 512 features to 10 scores. The
program prints these shapes at the start. The digits ship with a package.

This experiment shows shapes and losses, not accuracy: it makes 40 steps of 8
images, in a few minutes on a CPU. To learn digits, run quickstart.py. For all
60,000 digits, add --config.data.dataset=mnist, which tfds downloads. There is no
published number of BYOL on MNIST.
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
