"""The network of the reference's golden runs, and its parameters after them."""

import functools

import chex
import haiku as hk
import numpy as np

from byol_jax.config import schema
from tests import network_cases
from tests.golden_data import Golden

UPDATES = Golden("update_steps_1dev")

# A bias just before batch norm: its exact gradient is zero.
_ROUNDING_ONLY = [("projector/linear", "b"), ("predictor/linear", "b")]


@functools.cache
def make_network() -> hk.TransformedWithState:
  """The network that the reference trained, with ten classes."""
  config = UPDATES.json("config_json")["network_config"]
  assert (
    config["bn_config"]["decay_rate"] == schema.BatchNormConfig().decay_rate
  )
  assert config["bn_config"]["eps"] == schema.BatchNormConfig().eps
  assert config["projector_hidden_size"] == config["predictor_hidden_size"]
  return network_cases.make_network(
    name=config["encoder_class"],
    hidden_size=config["projector_hidden_size"],
    output_size=config["projector_output_size"],
  )


def trained_variables() -> tuple[dict, dict]:
  """Parameters and batch-norm statistics after the reference's six updates."""
  return (
    UPDATES.tree("after6/online_params"),
    UPDATES.tree("after6/online_state"),
  )


def assert_trees_agree(actual, expected, rtol: float) -> None:
  """Asserts that each array is within `rtol` of the expected, by L2 norm."""
  chex.assert_trees_all_equal_shapes(actual, expected)
  for module, arrays in expected.items():
    for name, array in arrays.items():
      error = np.linalg.norm(np.asarray(actual[module][name] - array))
      if (module, name) in _ROUNDING_ONLY and np.linalg.norm(array) < 1e-5:
        assert error < 1e-6, (module, name)
      else:
        assert error <= rtol * np.linalg.norm(array), (module, name)
