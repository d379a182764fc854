"""Every variant trains on two devices."""

import jax
import numpy as np
import pytest

from byol_jax import config
from byol_jax.config import convert
from byol_jax.models import encoders
from byol_jax.runtime import devices
from byol_jax.training import build, plan
from tests.network_cases import PATCHES

VARIANTS = {
  "layer norm in the loss": {"loss.normalization": "layer"},
  "batch norm in the loss": {"loss.normalization": "batch"},
  "one plain direction": {
    "loss.normalization": "none",
    "loss.symmetric": False,
  },
  "SimCLR's loss and ReLIC's penalty": {
    "loss.beta": 1.0,
    "loss.relic": 1.0,
    "loss.target_network": False,
    "model.predictor.kind": "none",
  },
  "a closed-form predictor": {"model.predictor.kind": "closed_form"},
  "DirectPred": {
    "model.predictor.kind": "direct_pred",
    "optimizer.projector_rate": 2.0,
  },
}


def make_batch():
  rng = np.random.RandomState(0)
  images = rng.rand(2, 8, 8, 8, 3).astype(np.float32)
  labels = np.arange(8, dtype=np.int32) % 4
  return {"view1": images[0], "view2": images[1], "label": labels}


def make_learner(overrides):
  settings = convert.updated(
    convert.typed(config.small_grey_config()),
    {
      "model.encoder.name": "Patches",
      "model.projector.hidden_size": 16,
      "model.projector.output_size": 6,
      "model.predictor.hidden_size": 16,
      "data.image_size": 8,
      "data.mean": (0.5, 0.5, 0.5),
      "data.std": (0.3, 0.3, 0.3),
      "train.batch_size": 8,
      "train.steps": 20,
      "optimizer.warmup_epochs": 0.5,
    }
    | overrides,
  )
  config.validate(settings)
  return build.build_learner(settings, plan.make_plan(settings, 64), 4)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_trains_on_two_devices(name, monkeypatch):
  monkeypatch.setitem(encoders.ENCODERS, "Patches", PATCHES)
  learner = make_learner(VARIANTS[name])
  batch = make_batch()
  state = learner.init(jax.random.key(0), batch)
  start = jax.device_get(state.online_params)
  update = devices.pmap_update(learner.update)
  state = devices.replicate(state)
  for on_devices in devices.prefetch([batch] * 20):
    state, metrics = update(state, on_devices)
  for leaf in jax.tree.leaves((state, metrics)):
    assert np.all(np.isfinite(leaf))
  moved = {
    module
    for module, arrays in start.items()
    for key, array in arrays.items()
    if np.any(state.online_params[module][key] != array)
  }
  assert moved == set(start)
