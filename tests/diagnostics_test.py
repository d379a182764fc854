"""Diagnostics tell spread from collapsed outputs, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.evaluation import geometry
from byol_jax.learning import diagnostics, optimizers
from byol_jax.models import networks
from byol_jax.runtime import devices
from tests.golden_network import make_network
from tests.golden_updates import golden_batch, lars_settings, start_state


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


def diagnose(config):
  rate = lambda step: config.base_learning_rate  # noqa: E731
  return diagnostics.make_diagnose(
    make_network(),
    optimizers.make_optimizer(rate, config),
    functools.partial(optimizers.trust_ratios, config),
  )


@pytest.mark.slow
def test_two_devices_tell_what_one_tells():
  config = lars_settings()
  state, batch = start_state(), golden_batch(0)
  one = jax.jit(diagnose(config))(state, batch)
  split = next(devices.prefetch(iter([dict(batch)])))
  two = devices.pmap_update(diagnose(config), keeps_state=True)(state, split)
  assert one.keys() == two.keys()
  assert "encoder_trust" in one
  for name, value in one.items():
    np.testing.assert_allclose(two[name], value, rtol=2e-3, err_msg=name)
  # The update norms are those of an update: the state's own momentum included.
  assert float(one["projector_step"]) > 0
  assert jax.tree.leaves(state.online_params)[0].shape  # Still there.
