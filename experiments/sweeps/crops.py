"""Leaves all operations but crops out of the views of BYOL and of SimCLR.

    python launch/sweep.py --sweep=experiments/sweeps/crops.py

In the paper SimCLR needs the other operations far more than BYOL does. There they
change the colours of photographs; Fashion-MNIST has brightness and contrast.
"""

from collections.abc import Mapping
from typing import Any

from byol_jax.augment.presets import PRESETS
from byol_jax.sweeps import Sweep, named_points

_SIMCLR = {
  "loss.beta": 1.0,
  "model.predictor.kind": "none",
  "loss.target_network": False,
}
_CROP = {f"augment.{key}": value for key, value in PRESETS["crop"].items()}


def get_sweep():
  settings: dict[str, tuple[Mapping[str, Any], tuple[float, float]]] = {
    "BYOL": ({}, (72.5, 0.0)),
    "BYOL crops only": (_CROP, (59.4, 0.0)),
    "SimCLR": (_SIMCLR, (67.9, 0.0)),
    "SimCLR crops only": (_SIMCLR | _CROP, (40.3, 0.0)),
  }
  return Sweep(
    experiment="experiments/fashion_mnist.py",
    points=named_points(settings),
    seeds=(0, 1),
    overrides={
      "data.image_size": 14,
      "data.split": "train[:12000]",
      "model.encoder.name": "ResNet10",
      "model.encoder.pooling": "mean",
      "model.encoder.width": 0.125,
      "train.batch_size": 128,
      "train.steps": 800,
      # This and the rate: the quickstart's, for short runs.
      "ema.base": 0.9,
      "optimizer.base_learning_rate": 0.2,
      "evaluation.baselines": False,
      "evaluation.protocols": ("knn", "linear"),
      "evaluation.train_split": "train[:12000]",
      "evaluation.linear.epochs": 20.0,
    },
    title="Crops only",
    axis="loss and views",
    scale="names",
    source="ablation of augmentations",
  )
