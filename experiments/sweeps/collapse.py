"""Takes out of BYOL what keeps it from collapsing, and puts in what replaces it.

    python launch/sweep.py --sweep=experiments/sweeps/collapse.py

The network and the images are small, so that a run takes minutes. The projections have
16 dimensions, as a closed-form predictor needs far more pairs than dimensions, and the
encoder's features are pooled to 64, from which an untrained encoder tells little.
"""

from collections.abc import Mapping
from typing import Any

from byol_jax.sweeps import Sweep, named_points

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
    "group norm, encoder": ({"model.encoder.norm": "group"}, None),
  }
  return Sweep(
    experiment="experiments/quickstart.py",
    points=named_points(settings),
    seeds=(0, 1),
    overrides={
      "augment.view1.crop_area": (0.3, 1.0),
      "augment.view2.crop_area": (0.3, 1.0),
      "augment.view1.extra": (),
      "augment.view2.extra": (),
      "data.image_size": 14,
      "model.encoder.pooling": "mean",
      "model.encoder.width": 0.125,
      "model.projector.output_size": 16,
      "train.batch_size": 128,
      "train.steps": 800,
      "evaluation.baselines": False,
      "evaluation.protocols": ("knn", "linear", "geometry"),
    },
    title="What keeps BYOL from collapsing",
    axis="what differs from BYOL",
    scale="names",
    source="tables 5 and 21, section 5",
  )
