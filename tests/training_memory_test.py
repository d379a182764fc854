"""Runs that no machine can hold are refused before anything is allocated."""

import jax
import numpy as np
import pytest

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.training import build, memory, plan


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"data.image_size": 2**14, "train.batch_size": 1},
    {"train.batch_size": 50_000, "data.image_size": 32},
  ],
)
def test_a_large_run_is_not_refused(changes, monkeypatch):
  pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 64 * 10**9 // 4096}
  monkeypatch.setattr(memory.os, "sysconf", pages.__getitem__)
  memory.check_batch(convert.updated(schema.Config(), changes))


@pytest.mark.parametrize(
  "changes",
  [{"train.batch_size": 10**9}, {"data.image_size": 2**14}],
)
def test_a_batch_beyond_memory_is_one_line(changes):
  config = convert.updated(schema.Config(), changes)
  with pytest.raises(errors.UserError) as caught:
    memory.check_batch(config)
  for key, value in changes.items():
    assert f"{key}={value}" in str(caught.value)
  assert "GB" in str(caught.value)


@pytest.mark.parametrize(
  "changes",
  [
    {"model.encoder.width": 1000.0},
    {"model.projector.hidden_size": 2**20, "model.projector.layers": 100},
  ],
)
def test_a_network_beyond_memory_is_one_line(changes):
  config = convert.updated(
    schema.Config(),
    {"model.encoder.name": "ResNet18", "train.batch_size": 32, **changes},
  )
  learner = build.build_learner(config, plan.make_plan(config, 1000), 10)
  image = np.zeros((1, 224, 224, 3), np.float32)
  state = jax.eval_shape(
    lambda: learner.init(
      jax.random.PRNGKey(0), {"view1": image, "view2": image}
    )
  )
  with pytest.raises(errors.UserError, match="training state takes") as caught:
    memory.check_state(config, state)
  assert "model.encoder.name=ResNet18" in str(caught.value)
