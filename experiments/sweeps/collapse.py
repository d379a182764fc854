"""Takes out of BYOL what keeps it from collapsing, and puts in what replaces it.

    python launch/sweep.py --sweep=experiments/sweeps/collapse.py

The network and the images are as small as they can be for the runs to differ: on
images of 14 pixels, training without a predictor collapses within 200 updates.
"""

from collections.abc import Mapping
from typing import Any

from byol_jax.sweeps import Point, Sweep

_COPY = {"ema.base": 0.0, "ema.schedule": "constant"}  # A tau of 0.
_NO_PREDICTOR = {"model.predictor.kind": "none"}
_GROUP_NORM = {
  f"model.{part}.norm": "group"
  for part in ("encoder", "projector", "predictor")
}


def get_sweep():
  settings: dict[str, tuple[Mapping[str, Any], tuple[float, float] | None]] = {
    "BYOL": ({}, (72.5, 0.0)),
    "no predictor": (_NO_PREDICTOR, (0.2, 0.0)),
    "tau 0": (_COPY, (0.3, 0.0)),
    "tau 0 no predictor": (_COPY | _NO_PREDICTOR, None),
    "tau 1": ({"ema.base": 1.0}, (18.8, 0.7)),
    "tau 0 closed form": (
      _COPY | {"model.predictor.kind": "closed_form"},
      (52.5, 0.0),
    ),
    "tau 0 fast predictor": (
      _COPY | {"optimizer.predictor_rate": 10.0},
      (66.6, 0.0),
    ),
    "group norm": (_GROUP_NORM, None),
  }
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      name: Point(x, overrides, paper)
      for x, (name, (overrides, paper)) in enumerate(settings.items())
    },
    seeds=(0, 1),
    overrides={
      "data.image_size": 14,
      "model.encoder.name": "TinyResNet",
      "train.epochs": 16,
      "evaluation.baselines": False,
      "evaluation.protocols": ("knn", "linear", "geometry"),
    },
    title="What keeps BYOL from collapsing",
    axis="what differs from BYOL",
    scale="names",
    source="tables 5 and 21, section 5",
  )
