"""Batch norm against `hk.BatchNorm`."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.models.batch_norm import BatchNorm, Settings
from byol_jax.runtime import platforms

RANDOM = np.random.RandomState(0)
SHAPES = [(32, 5), (4, 6, 7, 5)]  # [B, C] and [B, H, W, C].


def ours(scale_init=None):
  def forward(x, is_training):
    settings = Settings(0.9, 1e-5)
    norm = BatchNorm(settings, scale_init=scale_init, name="norm")
    return norm(x, is_training)

  return hk.without_apply_rng(hk.transform_with_state(forward))


def haikus():
  """On one view after the other, as the reference does."""

  def forward(x, is_training):
    norm = hk.BatchNorm(True, True, 0.9, eps=1e-5, name="norm")
    return jnp.stack([norm(view, is_training) for view in x])

  return hk.without_apply_rng(hk.transform_with_state(forward))


def inputs(shape, views):
  x = RANDOM.randn(views, *shape).astype(np.float32) * 3 + 1
  channels = (1,) * (len(shape) - 1) + shape[-1:]
  params = {
    "norm": {
      "scale": RANDOM.rand(*channels).astype(np.float32) + 0.5,
      "offset": RANDOM.randn(*channels).astype(np.float32),
    }
  }
  return x, params


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_and_state_are_those_of_haiku(shape):
  x, _ = inputs(shape, 2)
  variables = [
    network.init(None, x, is_training=True) for network in (ours(), haikus())
  ]
  assert jax.tree.structure(variables[0]) == jax.tree.structure(variables[1])
  for leaf, expected in zip(*map(jax.tree.leaves, variables), strict=True):
    np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("is_training", [True, False])
def test_outputs_and_running_statistics_are_those_of_haiku(
  shape, views, is_training
):
  x, params = inputs(shape, views)
  _, state = haikus().init(None, x, is_training=True)
  (y, after), (expected, expected_after) = (
    network.apply(params, state, x, is_training)
    for network in (ours(), haikus())
  )
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  assert after.keys() == expected_after.keys()
  for leaf, other in zip(
    jax.tree.leaves(after), jax.tree.leaves(expected_after), strict=True
  ):
    np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("views", [1, 2])
def test_gradients_by_input_scale_and_offset_are_those_of_haiku(shape, views):
  x, params = inputs(shape, views)
  weights = RANDOM.randn(*x.shape).astype(np.float32)
  _, state = haikus().init(None, x, is_training=True)

  def loss(params, x, network):
    y, _ = network.apply(params, state, x, True)
    return jnp.sum(weights * jnp.sin(y))

  gradients, expected = (
    jax.grad(loss, argnums=(0, 1))(params, x, network)
    for network in (ours(), haikus())
  )
  for leaf, other in zip(
    jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("is_training", [True, False])
def test_eps_limits_the_gain_of_almost_constant_channels(is_training):
  x, params = inputs((32, 5), 2)
  x = x * 1e-3  # Variances of about 1e-5, the size of eps.
  # The state holds a running average of such variances.
  _, state = haikus().apply(params, haikus().init(None, x, True)[1], x, True)
  y, expected = (
    network.apply(params, state, x, is_training)[0]
    for network in (ours(), haikus())
  )
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_goes_in_and_out_and_float32_is_computed():
  x, params = inputs((64, 5), 1)
  half = jnp.asarray(x, jnp.bfloat16)
  _, state = ours().init(None, x, is_training=True)
  y, after = ours().apply(params, state, half, True)
  expected, exact = ours().apply(params, state, half.astype(jnp.float32), True)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y, expected.astype(jnp.bfloat16))
  for leaf, other in zip(
    jax.tree.leaves(after), jax.tree.leaves(exact), strict=True
  ):
    assert leaf.dtype == other.dtype != jnp.bfloat16
    np.testing.assert_array_equal(leaf, other)


def test_the_gradient_by_bfloat16_is_that_by_float32_rounded():
  x, params = inputs((64, 5), 1)
  half = jnp.asarray(x, jnp.bfloat16)
  _, state = ours().init(None, x, is_training=True)

  def loss(x):
    y, _ = ours().apply(params, state, x, True)
    return jnp.sum(jnp.square(y[:, :32]).astype(jnp.float32))

  gradient, expected = map(jax.grad(loss), (half, half.astype(jnp.float32)))
  assert gradient.dtype == jnp.bfloat16
  error = np.linalg.norm(gradient.astype(np.float32) - expected)
  # bfloat16 has eight binary digits, and the outputs are rounded to them, too.
  assert 0 < error < 0.01 * np.linalg.norm(expected)


def test_the_scale_can_start_at_zero():
  x, _ = inputs((8, 5), 1)
  params, _ = ours(jnp.zeros).init(None, x, is_training=True)
  assert not np.any(params["norm"]["scale"])


def test_groups_of_devices_have_statistics_of_their_own():
  """Two devices as two groups, against each device by itself."""
  x, params = inputs((6, 5), 2)

  def network(axis_name=None, group_size=0):
    def apply(x):
      settings = Settings(0.9, 1e-5, axis_name, group_size)
      return BatchNorm(settings, name="norm")(x[None], is_training=True)[0]

    return hk.without_apply_rng(hk.transform_with_state(apply))

  _, state = network().init(None, x[0])
  y, new_state = jax.pmap(
    lambda x: network("d", group_size=1).apply(params, state, x), axis_name="d"
  )(x)
  alone = [network().apply(params, state, part) for part in x]
  for i, (expected, _) in enumerate(alone):
    np.testing.assert_allclose(y[i], expected, rtol=1e-5, atol=1e-5)
  leaves = map(jax.tree.leaves, (new_state, alone[0][1], alone[1][1]))
  for leaf, first, second in zip(*leaves, strict=True):
    for of_device in leaf:  # The same on both devices.
      np.testing.assert_allclose(of_device, (first + second) / 2, rtol=1e-5)


def test_values_may_be_normalised_in_their_own_type():
  x, params = inputs((64, 8), 1)
  x = x.astype(jnp.bfloat16)

  def outputs(in_own_type):
    def apply(x):
      settings = Settings(0.9, 1e-5, in_own_type=in_own_type)
      return BatchNorm(settings, name="norm")(x, is_training=True)

    network = hk.without_apply_rng(hk.transform_with_state(apply))
    state = network.init(None, x)[1]
    params_ = jax.tree.map(jnp.asarray, params)

    def loss(x):
      y, new_state = network.apply(params_, state, x)
      return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y, new_state)

    gradient, (y, new_state) = jax.grad(loss, has_aux=True)(x)
    assert gradient.dtype == y.dtype == jnp.bfloat16
    return gradient, y, new_state

  own, wide = outputs(True), outputs(False)
  for a, b in zip(own[:2], wide[:2], strict=True):
    a, b = a.astype(np.float32), b.astype(np.float32)
    assert 0 < np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)
  jax.tree.map(np.testing.assert_array_equal, own[2], wide[2])  # Statistics.


def traced(platform, x, params):
  """The program of a training step of the layer, as for another platform."""
  with platforms.assume(platform):
    network = ours()
    state = network.init(None, x, True)[1]
    return jax.jit(lambda x: network.apply(params, state, x, True)).trace(x)


def test_accelerators_sum_all_rows_at_once():
  x, params = inputs((32, 5), 2)

  def operations(platform):
    return str(traced(platform, x, params).jaxpr).count("slice")

  assert operations("cpu") >= operations("tpu") + 7  # Eight parts.


def test_gpus_sum_groups_of_rows_first():
  """Otherwise few blocks of threads do all the work."""
  x, params = inputs((1024, 5), 2)

  staged, plain = (traced(name, x, params) for name in ("gpu", "tpu"))
  assert "optimization_barrier" in str(staged.jaxpr)
  assert "optimization_barrier" not in str(plain.jaxpr)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
    *(program.lower().compile()(x) for program in (staged, plain)),
  )
