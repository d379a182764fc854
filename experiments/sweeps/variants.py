"""Changes one thing about BYOL at a time: its loss, heads, target, optimizer or norms.

    python launch/sweep.py --sweep=experiments/sweeps/variants.py

Network, images and length are those of collapse.py beside it, which has the variants
that are about collapse.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from byol_jax import sweeps

_COLLAPSE = sweeps.load(pathlib.Path(__file__).with_name("collapse.py"))
_COPY = {"ema.base": 0.0, "ema.schedule": "constant"}  # A tau of 0.
_NEGATIVES = {"loss.beta": 1.0}
_NO_PREDICTOR = {"model.predictor.kind": "none"}
_NO_TARGET = {"loss.target_network": False}


def _optimizer(name: str, rate: float, decay: float) -> dict[str, Any]:
  return {
    "optimizer.name": name,
    "optimizer.base_learning_rate": rate,
    "optimizer.weight_decay": decay,
  }


def _norm(name: str, *parts: str) -> dict[str, Any]:
  return {f"model.{part}.norm": name for part in parts}


_POINTS: dict[str, tuple[Mapping[str, Any], tuple[float, float] | None]] = {
  "BYOL": ({}, (72.5, 0.0)),
  "layer norm of outputs": ({"loss.normalization": "layer"}, (72.5, 0.4)),
  "batch norm of outputs": ({"loss.normalization": "batch"}, (65.3, 0.0)),
  "outputs as they are": ({"loss.normalization": "none"}, (67.4, 0.0)),
  "one direction": ({"loss.symmetric": False}, None),
  "negatives": (_NEGATIVES, (70.9, 0.0)),
  "few negatives": ({"loss.beta": 0.1}, None),
  "ReLIC": (_NEGATIVES | {"loss.relic": 1.0}, None),
  "negatives no predictor": (_NEGATIVES | _NO_PREDICTOR, (70.7, 0.0)),
  "negatives no target": (_NEGATIVES | _NO_TARGET, (69.1, 0.0)),
  "SimCLR": (_NEGATIVES | _NO_PREDICTOR | _NO_TARGET, (69.4, 0.0)),
  "tau 0 fast projector": (
    _COPY | {"optimizer.projector_rate": 2.0},
    (15.8, 13.4),
  ),
  "DirectPred": ({"model.predictor.kind": "direct_pred"}, None),
  "linear predictor": ({"model.predictor.layers": 1}, (71.5, 0.0)),
  "constant tau": ({"ema.schedule": "constant"}, None),
  "tau in steps": ({"ema.schedule": "step"}, None),
  "half-life": ({"ema.half_life": 1e4}, None),
  "same start": ({"ema.same_start": True}, None),
  "averaged statistics": ({"ema.average_statistics": True}, None),
  "layer norm": (_norm("layer", "encoder", "projector", "predictor"), None),
  "predictor without norm": (_norm("none", "predictor"), None),
  "no norm": (_norm("none", "encoder", "projector", "predictor"), None),
  # The quickstart's optimizer is SGD. LARS: as solo-learn trains on CIFAR; Adam,
  # AdamW: PyTorch's defaults at this batch; Lion: a tenth of the rate of AdamW and
  # ten times its decay (arXiv 2302.06675).
  "LARS": (
    _optimizer("lars", 1.0, 1e-5) | {"optimizer.trust_coefficient": 0.02},
    None,
  ),
  "Adam": (_optimizer("adam", 2e-3, 0.0), None),
  "AdamW": (_optimizer("adamw", 2e-3, 1e-2), None),
  "Lion": (_optimizer("lion", 2e-4, 1e-1), None),
  "constant rate": ({"optimizer.schedule": "constant"}, None),
  "rate in steps": ({"optimizer.schedule": "step"}, None),
  "rate by WSD": ({"optimizer.schedule": "wsd"}, None),
  "clipped": ({"optimizer.clip": 1.0}, None),
}


def get_sweep():
  return sweeps.Sweep(
    experiment=_COLLAPSE.experiment,
    points=sweeps.named_points(_POINTS),
    seeds=_COLLAPSE.seeds,
    overrides=_COLLAPSE.overrides,
    title="Variants of BYOL",
    axis="what differs from BYOL",
    scale="names",
    source="tables 5 and 22, ablation of normalisation, table of depths",
  )
