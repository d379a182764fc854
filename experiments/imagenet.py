"""The paper's runs: ResNet-50 on ImageNet for 40, 100, 300 or 1000 epochs.

    python -m byol_jax.main --config=experiments/imagenet.py:300 \\
      --config.data.data_dir=DIR

The paper's linear protocol gives a top-1 of about 62 after 40 epochs, 72.5
after 300 and 74.3 after 1000 (deepmind-research issue 76; Grill et al. 2020).

The run ends with two protocols. The first is kNN, for which the paper reports
no accuracy. The second is the linear protocol: it makes 80 epochs of one
forward pass, twice, which adds 7% to the cost of 300 epochs.

The paper trained 1000 epochs in about 8 hours on 512 TPU v3 cores. tfds must
have prepared imagenet2012.
"""

from byol_jax.config import default_config
from byol_jax.config import preset as find

# By epochs: base learning rate, weight decay, tau (deepmind-research/byol).
PRESETS = {
  "40": (0.45, 1e-6, 0.97),
  "100": (0.45, 1e-6, 0.99),
  "300": (0.3, 1e-6, 0.99),
  "1000": (0.2, 1.5e-6, 0.996),
}
# Top-1 by the linear protocol, where the docstring's sources report it.
EXPECTED = {"40": 0.62, "300": 0.725, "1000": 0.743}


def get_config(preset="1000"):
  config = default_config()
  (
    config.optimizer.base_learning_rate,
    config.optimizer.weight_decay,
    config.ema.base,
  ) = find(PRESETS, preset)
  config.train.epochs = int(preset)
  config.evaluation.holdout = 10_009 / 1_281_167  # As in the paper.
  if preset in EXPECTED:
    config.evaluation.expected = (f"linear/top1={EXPECTED[preset]}",)
  config.evaluation.baselines = False  # 150,528 pixel values are no baseline.
  return config
