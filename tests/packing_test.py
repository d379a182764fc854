"""What processes send one another: exact, and never code."""

import collections
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.config import schema
from byol_jax.learning import optimizers
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import packing


def sent(value):
  return packing.unpack(packing.pack(value))


@pytest.mark.parametrize(
  "value",
  [
    None,
    True,
    2**80,
    -0.0,
    float("inf"),
    0.1,
    "café\n",
    [],
    ["list", 1],
    ("dict", ("array",)),
    {"a": {}, "b": [None], "": ()},
    {3: 1, -1: 0.5},
  ],
)
def test_a_plain_value_arrives_with_its_type(value):
  assert sent(value) == value
  assert type(sent(value)) is type(value)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_a_training_state_arrives_bit_for_bit(name):
  config = schema.OptimizerConfig(name=name)
  params = {"linear": {"w": jnp.full((2, 3), 0.1), "b": jnp.zeros(0)}}
  optimizer = optimizers.make_optimizer(lambda step: step / 10, config)
  state = TrainState(
    step=jnp.int32(7),
    online_params=params,
    target_params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), params),
    online_state={},
    target_state={"norm": {"mean": jnp.array([np.nan, -0.0])}},
    opt_state=optimizer.init(params),
  )
  arrived = sent(state)
  assert jax.tree.structure(arrived) == jax.tree.structure(state)
  for found, leaf in zip(
    jax.tree.leaves(arrived), jax.tree.leaves(state), strict=True
  ):
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (leaf.dtype, leaf.shape)
    assert found.tobytes() == np.asarray(leaf).tobytes()


def message(described, *arrays):
  """A message as another program may have written it."""
  text = np.frombuffer(json.dumps(described).encode(), np.uint8)
  return [text, *arrays]


@pytest.mark.parametrize(
  "described",
  [
    ["os:system", "false"],
    ["builtins:eval", "1"],
    ["subprocess:Popen", "false"],
    ["antigravity:x"],
    ["collections:namedtuple", "a", "b"],
    ["byol_jax.runtime.packing:sys.exit", 1],
    ["array", 0, "object", [1]],
    ["array", 0, "V8,O", [1]],
  ],
)
def test_a_message_cannot_name_code(described):
  with pytest.raises((ValueError, TypeError)):
    packing.unpack(message(described, np.zeros(8, np.uint8)))


def test_a_pickle_is_not_run(tmp_path):
  class Malicious:
    def __reduce__(self):
      return (open, (str(tmp_path / "made"), "w"))

  payload = np.frombuffer(pickle.dumps(Malicious()), np.uint8)
  with pytest.raises(ValueError):  # noqa: PT011  Of JSON or of UTF-8.
    packing.unpack([payload])
  assert not (tmp_path / "made").exists()


def test_nothing_else_can_be_sent():
  for value in (object(), {1, 2}, collections.OrderedDict, b"bytes"):
    with pytest.raises(TypeError, match="cannot be sent"):
      packing.pack(value)
