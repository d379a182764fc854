"""Convolution as CPUs compute it, against XLA's own."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.models import convolution, layers
from byol_jax.runtime import platforms

_PADS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def problems(draw):
  """Images, a kernel no larger than they are, a stride and a padding."""
  rows, columns = draw(
    st.sampled_from([(1, 1), (3, 3), (2, 3), (3, 1), (5, 5), (7, 7)])
  )
  channels = draw(st.sampled_from([1, 3, 8, 64]))
  shape = (
    draw(st.integers(1, 3)),
    draw(st.integers(rows, 12)),
    draw(st.integers(columns, 12)),
    channels,
  )
  padding = draw(st.sampled_from(["SAME", "VALID"]) | st.tuples(_PADS, _PADS))
  random = np.random.RandomState(draw(st.integers(0, 1000)))
  x = random.randn(*shape).astype(np.float32)
  w = random.randn(rows, columns, channels, 5).astype(np.float32)
  return x, w, draw(st.sampled_from([1, 2, 3])), padding


def lax_conv(x, w, stride, padding):
  return jax.lax.conv_general_dilated(
    x, w, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def assert_close(actual, expected):
  """Within 1e-5 of the largest number."""
  assert actual.shape == expected.shape
  np.testing.assert_allclose(
    actual, expected, rtol=0, atol=1e-5 * np.max(np.abs(expected)) + 1e-30
  )


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems())
def test_forward_and_both_gradients_are_those_of_lax_conv(problem):
  x, w, stride, padding = problem
  y, vjp = jax.vjp(lambda x, w: convolution.conv(x, w, stride, padding), x, w)
  expected, expected_vjp = jax.vjp(
    lambda x, w: lax_conv(x, w, stride, padding), x, w
  )
  assert_close(y, expected)
  dy = np.random.RandomState(0).randn(*y.shape).astype(np.float32)
  for actual, reference in zip(vjp(dy), expected_vjp(dy), strict=True):
    assert_close(actual, reference)


@pytest.mark.parametrize("channels", [3, 64])
def test_gradients_in_a_loop_are_those_outside(channels):
  """Accumulation over micro-batches computes gradients in a loop."""
  random = np.random.RandomState(0)
  x = random.randn(4, 2, 7, 9, channels).astype(np.float32)
  w = random.randn(3, 3, channels, 8).astype(np.float32)

  def gradient(x):
    return jax.grad(lambda w: jnp.sum(jnp.square(convolution.conv(x, w, 1))))(w)

  looped = jnp.sum(jax.lax.map(gradient, x), axis=0)
  assert_close(looped, gradient(x.reshape(-1, *x.shape[2:])))


def test_leading_axes_are_only_examples():
  random = np.random.RandomState(0)
  x = random.randn(2, 3, 8, 8, 4).astype(np.float32)
  w = random.randn(3, 3, 4, 6).astype(np.float32)
  y = convolution.conv(x, w, 2)
  assert y.shape == (2, 3, 4, 4, 6)
  assert_close(y[1], convolution.conv(x[1], w, 2))


def test_accelerators_get_xlas_own_convolution():
  x = jnp.ones((1, 8, 8, 64))
  w = jnp.ones((3, 3, 64, 8))

  def traced(platform):
    with platforms.assume(platform):
      return jax.make_jaxpr(lambda x, w: convolution.conv(x, w, 1))(x, w)

  assert "custom_vjp" in str(traced("cpu"))
  (operation,) = traced("gpu").eqns
  assert operation.primitive.name == "conv_general_dilated"


@pytest.mark.parametrize(
  ("side", "channels"), [(32, 12), (33, 3)], ids=["even", "odd"]
)
def test_accelerators_compute_a_stem_of_even_images_on_blocks(side, channels):
  x, w = jnp.ones((1, side, side, 3)), jnp.ones((7, 7, 3, 8))
  with platforms.assume("tpu"):
    program = jax.make_jaxpr(lambda x, w: convolution.conv(x, w, 2))(x, w)
  (convolved,) = [
    operation
    for operation in program.eqns
    if operation.primitive.name == "conv_general_dilated"
  ]
  assert convolved.invars[0].aval.shape[-1] == channels


@pytest.mark.parametrize("padding", ["SAME", convolution.symmetric(7)])
@pytest.mark.parametrize("shape", [(2, 8, 10, 3), (2, 3, 32, 32, 1)])
def test_blocks_of_pixels_give_the_same_stem(shape, padding):
  rng = np.random.RandomState(0)
  x = rng.randn(*shape).astype(np.float32)
  w = rng.randn(7, 7, shape[-1], 6).astype(np.float32)
  assert_close(
    convolution.conv_on_blocks(x, w, padding),
    convolution.conv(x, w, 2, padding),
  )


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (7, 2)])
def test_the_layer_is_haikus(kernel, stride):
  x = np.random.RandomState(0).randn(2, 9, 10, 5).astype(np.float32)

  def of(layer):
    return hk.without_apply_rng(hk.transform(layer))

  ours = of(lambda x: layers.Conv2D(6, kernel, stride, "conv")(x))
  haikus = of(
    lambda x: hk.Conv2D(6, kernel, stride, with_bias=False, name="conv")(x)
  )
  key = jax.random.key(0)
  params, expected = ours.init(key, x), haikus.init(key, x)
  np.testing.assert_array_equal(params["conv"]["w"], expected["conv"]["w"])
  assert_close(ours.apply(params, x), haikus.apply(params, x))


# Also images that are smaller than the kernel, of which some elements see zeros only.
@pytest.mark.parametrize(
  "shape", [(2, 9, 12, 6), (3, 2, 1, 4), (2, 2, 5, 5, 3)]
)
@pytest.mark.parametrize("kernel", [(7, 7), (3, 5)])
def test_depthwise_convolution_and_its_gradients_are_those_of_lax(
  shape, kernel
):
  random = np.random.RandomState(0)
  x = random.randn(*shape).astype(np.float32)
  w = random.randn(*kernel, 1, shape[-1]).astype(np.float32)
  dy = random.randn(*shape).astype(np.float32)

  def results(platform):
    with platforms.assume(platform):
      y, vjp = jax.vjp(convolution.depthwise, x, w)
      return y, *vjp(dy)

  for actual, expected in zip(results("cpu"), results("any"), strict=True):
    assert_close(actual, expected)


def test_depthwise_convolution_keeps_bfloat16_and_adds_in_float32():
  random = np.random.RandomState(0)
  x = jnp.asarray(random.randn(1, 8, 8, 4), jnp.bfloat16)
  w = jnp.asarray(random.randn(7, 7, 1, 4), jnp.bfloat16)
  y, vjp = jax.vjp(convolution.depthwise, x, w)
  results = (y, *vjp(y))
  assert {str(a.dtype) for a in results} == {"bfloat16"}
  exact = convolution.depthwise(*(a.astype(jnp.float32) for a in (x, w)))
  # Half a unit in the last of eight binary places.
  np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8)


@pytest.mark.parametrize("platform", ["cpu", "any"])
def test_the_depthwise_layer_is_haikus(platform):
  x = np.random.RandomState(0).randn(2, 9, 10, 5).astype(np.float32)
  w_init = hk.initializers.RandomNormal()

  def of(layer):
    return hk.without_apply_rng(hk.transform(layer))

  ours = of(lambda x: layers.DepthwiseConv2D(7, w_init, "conv")(x))
  haikus = of(lambda x: hk.DepthwiseConv2D(1, 7, w_init=w_init, name="conv")(x))
  key = jax.random.key(0)
  params, expected = ours.init(key, x), haikus.init(key, x)
  assert {n: a.shape for n, a in params["conv"].items()} == {
    n: a.shape for n, a in expected["conv"].items()
  }
  expected["conv"]["b"] += 0.5
  with platforms.assume(platform):
    assert_close(ours.apply(expected, x), haikus.apply(expected, x))
