"""Predictors that are no MLP, against direct computations."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import config, errors
from byol_jax.config import convert, schema
from byol_jax.config.loss_schema import LossConfig
from byol_jax.learning import closed_form, loss_family
from byol_jax.models import describe, predictors
from byol_jax.models.networks import Outputs
from byol_jax.training import build

RANDOM = np.random.RandomState(0)


def normal(*shape):
  return RANDOM.randn(*shape).astype(np.float32)


def test_least_squares_is_numpys():
  inputs, outputs = normal(40, 6) + 1, normal(40, 3)
  expected, *_ = np.linalg.lstsq(inputs, outputs, rcond=None)
  actual = closed_form.least_squares(inputs, outputs, ridge=1e-7)
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_least_squares_of_few_rows_is_numpys_with_more_rows_for_the_ridge(
  scale,
):
  inputs, outputs = normal(4, 6) * np.float32(scale), normal(4, 3)
  r = 0.01 * np.trace(inputs.T @ inputs) / 6
  expected, *_ = np.linalg.lstsq(
    np.concatenate([inputs, np.sqrt(r) * np.eye(6)]),
    np.concatenate([outputs, np.zeros((6, 3))]),
    rcond=None,
  )
  actual = closed_form.least_squares(inputs, outputs, ridge=0.01)
  np.testing.assert_allclose(actual, expected, rtol=1e-3)


def views(rows=8):
  return tuple(Outputs(None, normal(rows, 4), None, None) for _ in range(2))


def test_the_gradient_needs_no_path_through_the_closed_form():
  """At the best predictor, the squared distance does not change with it."""
  online, target = views(16), views(16)
  plain = loss_family.make_loss(LossConfig(normalization="none"))
  loss = closed_form.with_closed_form_predictor(plain, 1e-7)

  def of_first(x):
    return loss((online[0]._replace(projection=x), online[1]), target)

  step = np.zeros((16, 4), np.float32)
  step[3, 2] = 0.02
  first = online[0].projection
  difference = (of_first(first + step) - of_first(first - step)) / 0.04
  gradient = jax.grad(of_first)(first)
  np.testing.assert_allclose(gradient[3, 2], difference, rtol=0.02, atol=1e-4)
  assert abs(difference) > 0.01


def test_the_closed_form_predicts_each_view_of_the_target_from_the_other():
  online = views(16)
  mixing = normal(4, 4)
  # The target's view 1 is a linear function of the online network's view 2.
  target = [
    view._replace(projection=view.projection @ mixing) for view in online
  ]
  plain = loss_family.make_loss(LossConfig(normalization="none"))
  loss = closed_form.with_closed_form_predictor(plain, 1e-7)
  assert loss(online, target[::-1]) < 1e-6
  assert loss(online, target) > 0.1


def test_the_closed_form_is_that_of_all_devices():
  online, target = views(), views()
  loss = closed_form.with_closed_form_predictor(
    loss_family.make_loss(LossConfig()), 1e-4
  )
  split = functools.partial(jax.tree.map, lambda x: x.reshape(2, 4, 4))
  values = jax.vmap(
    functools.partial(loss, axis_name="devices"), axis_name="devices"
  )(split(online), split(target))
  np.testing.assert_allclose(jnp.mean(values), loss(online, target), rtol=1e-4)


def direct_pred(axis_name=None):
  def forward(x, is_training):
    return predictors.DirectPred(axis_name, "predictor")(x, is_training)

  return hk.without_apply_rng(hk.transform_with_state(forward))


def test_direct_pred_is_its_formula_over_two_batches():
  moment = np.zeros((5, 5))
  state = {"predictor": {"moment": jnp.zeros((5, 5))}}
  for _ in range(2):
    x = normal(2, 8, 5)
    y, state = direct_pred().apply({}, state, x, True)
    rows = x.reshape(-1, 5).astype(np.float64)
    moment = 0.3 * moment + 0.7 * np.mean(
      rows[:, :, None] * rows[:, None, :], axis=0
    )
    s, u = np.linalg.eigh(moment)
    matrix = u @ np.diag(np.sqrt(s) + 0.1 * s.max()) @ u.T
    np.testing.assert_allclose(y, x @ matrix, rtol=1e-3, atol=1e-4)
  same, unchanged = direct_pred().apply({}, state, x, False)
  np.testing.assert_array_equal(same, y)
  np.testing.assert_array_equal(
    unchanged["predictor"]["moment"], state["predictor"]["moment"]
  )


def test_direct_pred_takes_in_all_devices_and_passes_gradients_by_its_input():
  x = normal(2, 8, 5)
  state = {"predictor": {"moment": jnp.zeros((5, 5))}}

  def run(x, axis_name=None):
    return direct_pred(axis_name).apply({}, state, x, True)

  y, after = run(x)
  split = x.reshape(2, 2, 4, 5).swapaxes(0, 1)
  on_devices, moments = jax.vmap(
    functools.partial(run, axis_name="devices"), axis_name="devices"
  )(split)
  np.testing.assert_allclose(
    on_devices.swapaxes(0, 1).reshape(y.shape), y, rtol=1e-4, atol=1e-5
  )
  for moment in moments["predictor"]["moment"]:
    np.testing.assert_allclose(
      moment, after["predictor"]["moment"], rtol=1e-5, atol=1e-6
    )
  weights = normal(2, 8, 5)
  gradient = jax.grad(lambda x: jnp.sum(weights * run(x)[0]))(x)
  # That of a constant symmetric matrix.
  expected, _ = direct_pred().apply({}, after, weights, False)
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "closed_form", "direct_pred"])
def test_predictors_without_parameters_are_described(kind):
  settings = convert.updated(
    schema.Config(),
    {"model.predictor.kind": kind, "model.encoder.name": "TinyResNet"},
  )
  network = build.build_network(settings, 10)
  parts = {
    part.name: part for part in describe.describe(network, (2, 32, 32, 3))
  }
  assert parts["predictor"].parameters == 0
  assert parts["predictor"].output_shape == "2x256"


def test_mistakes_in_the_predictor_are_named():
  settings = convert.updated(
    schema.Config(), {"model.predictor.kind": "linear"}
  )
  with pytest.raises(
    errors.UserError, match="mlp, none, closed_form, direct_pred"
  ):
    build.build_network(settings, 10)
  settings = convert.updated(
    schema.Config(),
    {"model.predictor.kind": "closed_form", "loss.target_network": False},
  )
  with pytest.raises(errors.UserError, match=r"loss\.target_network=False"):
    config.validate(settings)
