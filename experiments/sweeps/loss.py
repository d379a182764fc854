"""Sweeps from BYOL to SimCLR, and the normalisation in BYOL's loss.

    python launch/sweep.py --sweep=experiments/sweeps/loss.py

The points from `BYOL` to `SimCLR` are the paper's table 5b: with and without predictor,
target network and negatives (beta = 1). Without a target and without negatives, a copy
of the online network behind a stopped gradient stands in for the target. The others
normalise predictions and projections in another way.
"""

from collections.abc import Mapping
from typing import Any

from byol_jax.sweeps import Sweep, named_points

_NEGATIVES = {"loss.beta": 1.0}
_NO_PREDICTOR = {"model.predictor.kind": "none"}
_NO_TARGET = {"loss.target_network": False}
_COPY = {"ema.base": 0.0, "ema.schedule": "constant"}


def get_sweep():
  settings: dict[str, tuple[Mapping[str, Any], tuple[float, float]]] = {
    "BYOL": ({}, (72.5, 0.0)),
    "no predictor": (_NO_PREDICTOR, (0.2, 0.0)),
    "no target": (_COPY, (0.3, 0.0)),
    "negatives": (_NEGATIVES, (70.9, 0.0)),
    "negatives no predictor": (_NEGATIVES | _NO_PREDICTOR, (70.7, 0.0)),
    "negatives no target": (_NEGATIVES | _NO_TARGET, (69.1, 0.0)),
    "SimCLR": (_NEGATIVES | _NO_PREDICTOR | _NO_TARGET, (69.4, 0.0)),
    "layer": ({"loss.normalization": "layer"}, (72.5, 0.4)),
    "batch": ({"loss.normalization": "batch"}, (65.3, 0.0)),
    "none": ({"loss.normalization": "none"}, (67.4, 0.0)),
  }
  return Sweep(
    experiment="experiments/quickstart.py",
    points=named_points(settings),
    title="Loss",
    axis="what differs from BYOL",
    scale="names",
    source="table 5b, ablation of normalisation",
  )
