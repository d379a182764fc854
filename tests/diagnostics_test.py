"""Diagnostics tell spread from collapsed outputs, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.evaluation import geometry
from byol_jax.learning import diagnostics, learner, optimizers
from byol_jax.models import networks
from byol_jax.runtime import devices
from byol_jax.training import health
from tests.golden_network import make_network
from tests.golden_updates import (
  golden_batch,
  lars_settings,
  make_learner,
  start_state,
)


def outputs(projection, embedding=None):
  projection = jnp.asarray(projection, jnp.float32)
  embedding = projection if embedding is None else jnp.asarray(embedding)
  return networks.Outputs(embedding, projection, projection, projection)


def of_outputs(first, second=None):
  """Diagnostics where the target network is the online network."""
  first, second = outputs(first), outputs(first if second is None else second)
  views = (first, second)
  found = diagnostics._of_outputs(views, views)
  return {k: float(v) for k, v in found.items()}


RANDOM = np.random.RandomState(0).randn(256, 16)


def test_projections_that_are_spread_evenly():
  found = of_outputs(RANDOM)
  assert found["projection_std"] == pytest.approx(1, abs=0.05)
  assert found["projection_rank"] > 14
  assert found["uniformity"] < -3
  assert found["same_neighbour"] < 0.1
  assert found["alignment"] == pytest.approx(0, abs=1e-6)
  assert found["target_cosine"] == pytest.approx(1, abs=1e-6)
  opposite = of_outputs(RANDOM, -RANDOM)
  assert opposite["alignment"] == pytest.approx(4, abs=1e-5)
  assert opposite["prediction_cosine"] == pytest.approx(-1, abs=1e-6)


def test_projections_at_a_single_point():
  found = of_outputs(np.ones((256, 16)))
  assert found["projection_std"] == pytest.approx(0, abs=1e-3)
  assert found["projection_rank"] == pytest.approx(1, abs=1e-3)
  assert found["uniformity"] == pytest.approx(0, abs=1e-5)
  assert found["same_neighbour"] > 0.99


def test_projections_on_a_line_have_rank_one_and_are_not_one_point():
  line = RANDOM[:, :1] * np.ones(16)
  found = of_outputs(line)
  assert found["projection_rank"] == pytest.approx(1, abs=1e-3)
  assert found["projection_std"] == pytest.approx(1, abs=0.05)


def test_ranks_are_those_of_the_geometry_protocol():
  vectors = RANDOM * np.linspace(0.1, 3, 16) + 0.5
  assert diagnostics.effective_rank(jnp.asarray(vectors)) == pytest.approx(
    geometry.rank_me(vectors), rel=1e-4
  )


def test_uniformity_is_that_of_the_geometry_protocol():
  unit = RANDOM / np.linalg.norm(RANDOM, axis=1, keepdims=True)
  expected = geometry.uniformity(unit)
  assert of_outputs(RANDOM)["uniformity"] == pytest.approx(expected, abs=1e-4)


def observing(config):
  """The update by a constant learning rate, with evidence."""
  rate = lambda step: config.base_learning_rate  # noqa: E731
  trained = learner.make_learner(
    make_network(),
    optimizers.make_optimizer(rate, config),
    rate,
    lambda step: 0.9,
  )
  trust_ratios = functools.partial(optimizers.trust_ratios, config)
  return diagnostics.observing(trained, trust_ratios)


@pytest.mark.slow
def test_two_devices_tell_what_one_tells():
  update = observing(lars_settings())
  state, batch = start_state(), golden_batch(0)
  after, _, seen = jax.jit(update)(state, batch)
  outputs = seen.online, seen.target
  one = jax.jit(diagnostics.diagnose)(seen.numbers, outputs)
  norm = optax.tree.norm(diagnostics._select(state.online_params, "encoder"))
  assert one["encoder_norm"] == pytest.approx(float(norm), rel=1e-5)

  change = jax.tree.map(jnp.subtract, after.online_params, state.online_params)
  for part in ("encoder", "projector", "predictor"):
    expected = optax.tree.norm(diagnostics._select(change, part))
    assert one[f"{part}_update"] == pytest.approx(float(expected), rel=1e-3)
    assert 0 < one[f"{part}_step"] < 1

  axes = (None, None, health.EVIDENCE_AXES)
  split = next(devices.prefetch(iter([dict(batch)])))
  on_two = devices.pmap_update(update, out_axes=axes)
  _, _, seen = on_two(state, split)
  diagnose = devices.pmap_update(diagnostics.diagnose, keeps_state=True)
  two = diagnose(seen.numbers, (seen.online, seen.target))
  assert one.keys() == two.keys()
  assert "encoder_trust" in one
  for name, value in one.items():
    np.testing.assert_allclose(two[name], value, rtol=2e-3, err_msg=name)


@pytest.mark.parametrize(
  ("batch_size", "microbatches", "seen"), [(8, 2, 8), (2048, 4, 512)]
)
def test_examples_of_all_microbatches_are_seen_but_not_many(
  batch_size, microbatches, seen
):
  batch = {
    name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)
    for name, x in golden_batch(0).items()
  }
  update = make_learner(microbatches=microbatches).observed_update
  _, _, observed = jax.eval_shape(update, start_state(), batch)
  for views in (observed.online, observed.target):
    assert {len(x) for x in jax.tree.leaves(views)} == {seen}
