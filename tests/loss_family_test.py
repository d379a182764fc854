"""The family of losses against direct computations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import config, errors
from byol_jax.config import convert, schema
from byol_jax.config.loss_schema import LossConfig
from byol_jax.learning import loss_family, losses
from byol_jax.models.networks import Outputs

RANDOM = np.random.RandomState(0)
SIZE = (8, 5)


def both_views():
  """Outputs of a network with a predictor for both views."""
  return tuple(
    Outputs(*(RANDOM.randn(*SIZE).astype(np.float32) for _ in range(4)))
    for _ in range(2)
  )


ONLINE, TARGET = both_views(), both_views()


def unit(x):
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def loss_of(**settings):
  return loss_family.make_loss(LossConfig(**settings))(ONLINE, TARGET)


def test_the_default_is_byols_loss():
  assert loss_family.make_loss(LossConfig()) is losses.byol_loss


def test_byol_is_the_sum_of_two_directions_without_negatives():
  loss = loss_family.make_loss(LossConfig(symmetric=False))
  both = loss(ONLINE, TARGET) + loss(ONLINE[::-1], TARGET[::-1])
  np.testing.assert_allclose(both, losses.byol_loss(ONLINE, TARGET), rtol=1e-6)


def normalized(name, x):
  centred = {"layer": 1, "batch": 0}
  if name in centred:
    axis = centred[name]
    x = x - x.mean(axis, keepdims=True)
    return x / np.sqrt(x.var(axis, keepdims=True) + 1e-5) / np.sqrt(SIZE[1])
  return x


@pytest.mark.parametrize("name", ["layer", "batch", "none"])
def test_other_normalisations_compare_by_squared_distance(name):
  expected = sum(
    np.sum(
      np.square(
        normalized(name, ONLINE[v].prediction)
        - normalized(name, TARGET[1 - v].projection)
      )
    )
    / SIZE[0]
    for v in range(2)
  )
  np.testing.assert_allclose(loss_of(normalization=name), expected, rtol=1e-5)


def nt_xent(vectors1, vectors2, temperature):
  """SimCLR's loss: among all 2B vectors, which is the other view's."""
  vectors = unit(np.concatenate([vectors1, vectors2]))
  logits = vectors @ vectors.T / temperature
  np.fill_diagonal(logits, -np.inf)
  positives = np.roll(np.arange(len(vectors)), len(vectors1))
  log_sums = np.log(np.sum(np.exp(logits), axis=1))
  return np.mean(log_sums - logits[np.arange(len(vectors)), positives])


def test_simclr_is_the_member_without_predictor_and_target():
  views = [Outputs(None, x.projection, x.projection, None) for x in ONLINE]
  loss = loss_family.make_loss(
    LossConfig(target_network=False, beta=1.0, alpha=0.3)
  )
  # Two directions of 2 + 2 alpha NT-Xent each.
  expected = 4 + 4 * 0.3 * nt_xent(*(x.projection for x in ONLINE), 0.3)
  np.testing.assert_allclose(loss(views, views), expected, rtol=1e-5)

  def of_first(x):
    return loss((views[0]._replace(projection=x, prediction=x), views[1]), None)

  step = np.zeros_like(ONLINE[0].projection)
  step[3, 2] = 0.01
  first = ONLINE[0].projection
  difference = of_first(first + step) - of_first(first - step)
  np.testing.assert_allclose(
    jax.grad(of_first)(first)[3, 2], difference / 0.02, rtol=0.01
  )


def test_relic_adds_the_divergence_of_the_two_directions():
  alpha, weight = 0.4, 3.0
  p = [
    jax.nn.softmax(
      unit(ONLINE[v].prediction) @ unit(TARGET[1 - v].projection).T / alpha
    )
    for v in range(2)
  ]
  for symmetric, pairs in ((True, [(0, 1), (1, 0)]), (False, [(0, 1)])):
    expected = sum(
      np.mean(np.sum(p[v] * np.log(p[v] / p[w]), axis=1)) for v, w in pairs
    )
    settings = {"alpha": alpha, "beta": 1.0, "symmetric": symmetric}
    added = loss_of(**settings, relic=weight) - loss_of(**settings)
    np.testing.assert_allclose(added, 2 * alpha * weight * expected, rtol=1e-4)


def test_no_gradient_reaches_the_target():
  loss = loss_family.make_loss(LossConfig(beta=0.5, relic=1.0))
  gradient = jax.grad(lambda target: loss(ONLINE, target))(TARGET)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
  "settings",
  [{"beta": 0.5, "relic": 2.0}, {"normalization": "batch"}],
  ids=str,
)
def test_the_mean_of_the_devices_is_the_loss_of_all_their_images(settings):
  loss = loss_family.make_loss(LossConfig(**settings))
  axis = functools.partial(loss, axis_name="devices")

  def split(tree):
    return jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), tree)

  # `vmap` gives the axis its name without two devices.
  value, grads = jax.vmap(jax.value_and_grad(axis), axis_name="devices")(
    split(ONLINE), split(TARGET)
  )
  expected, expected_grads = jax.value_and_grad(loss)(ONLINE, TARGET)
  np.testing.assert_allclose(jnp.mean(value), expected, rtol=1e-5)
  for view, expected_view in zip(grads, expected_grads, strict=True):
    np.testing.assert_allclose(
      view.prediction.reshape(SIZE) / 2,  # Each device averages half of them.
      expected_view.prediction,
      rtol=1e-4,
      atol=1e-6,
    )
    assert not np.any(view.projection)


def test_cosines_need_vectors_of_unit_length():
  for key in ("loss.beta", "loss.relic"):
    changed = convert.updated(
      schema.Config(), {"loss.normalization": "batch", key: 0.5}
    )
    with pytest.raises(errors.UserError, match=r"loss\.normalization=batch"):
      config.validate(changed)
  with pytest.raises(errors.UserError, match="l2, layer, batch, none"):
    loss_family.make_loss(LossConfig(normalization="l1"))
