"""The update step against the reference, and the invariants of BYOL."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.learning import accumulation, learner, optimizers
from byol_jax.runtime import devices
from tests.golden_data import Golden
from tests.golden_network import assert_trees_agree, make_network
from tests.golden_updates import (
  ONE,
  golden_batch,
  initial_state,
  lars_settings,
  make_learner,
  start_state,
)

TWO = Golden("update_steps_2dev")


# Compiled once for all tests: compilation is what takes their time.
@functools.cache
def on_one_device():
  return jax.jit(make_learner().update)


@functools.cache
def on_two_devices():
  return devices.pmap_update(make_learner().update)


@jax.jit
def loss_of_batch(params, state, batch):
  """`learner.loss_fn` of a whole batch on one device."""
  labelled = accumulation.labelled_fraction(batch["label"], axis_name=None)
  return learner.loss_fn(make_network(), params, state, batch, labelled)


gradients_of_batch = jax.jit(jax.grad(loss_of_batch, has_aux=True))


def trace(state):
  return optax.tree.get(state.opt_state, "trace")


def in_float64(tree):
  return jax.tree.map(
    lambda x: np.asarray(x, np.float64 if x.dtype == np.float32 else x.dtype),
    tree,
  )


def run_steps(update, state, batches):
  """States after each step, and metrics, from an update of (state, batch)."""
  states, metrics = [], []
  for batch in batches:
    state, step_metrics = update(state, batch)
    states.append(jax.device_get(state))
    metrics.append(jax.device_get(step_metrics))
  return states, metrics


def test_initial_parameters_are_the_references():
  state = initial_state()
  assert_trees_agree(state.online_params, ONE.tree("init/online_params"), 1e-6)
  shapes = jax.tree.map(jnp.shape, ONE.tree("init/online_state"))
  assert jax.tree.map(jnp.shape, state.online_state) == shapes
  assert int(state.step) == 0


def test_outputs_at_the_start_are_the_references():
  state = start_state()
  forward = jax.jit(functools.partial(make_network().apply, is_training=True))
  for network in ("online", "target"):
    params = getattr(state, f"{network}_params")
    bn_state = getattr(state, f"{network}_state")
    for view in ("view1", "view2"):
      outputs, bn_state = forward(params, bn_state, golden_batch(0)[view])
      for name in ("projection", "prediction", "logits"):
        np.testing.assert_allclose(
          getattr(outputs, name),
          ONE[f"fwd0/{network}/{name}_{view}"],
          rtol=1e-5,
          atol=1e-5,
        )


def test_gradients_at_the_start_are_the_references():
  state = start_state()
  grads, _ = gradients_of_batch(state.online_params, state, golden_batch(0))
  assert_trees_agree(grads, ONE.tree("grads0"), 3e-5)


def assert_steps_agree(states, metrics, golden):
  tolerances = {
    2: {"online_params": 1e-5, "trace": 6e-5, "online_state": 1e-5},
    6: {
      "online_params": 2e-4,
      "trace": 5e-4,
      "online_state": 5e-5,
      "target_params": 3e-6,
      "target_state": 2e-6,
    },
  }
  for step, names in tolerances.items():
    state = states[step - 1]
    assert int(state.step) == step
    for name, rtol in names.items():
      if name == "trace":
        assert_trees_agree(trace(state), golden.tree(f"after{step}/mu"), rtol)
      else:
        assert_trees_agree(
          getattr(state, name), golden.tree(f"after{step}/{name}"), rtol
        )
  rtol = {"tau": 1e-7, "learning_rate": 1e-7}
  for name in (
    "loss",
    "repr_loss",
    "classif_loss",
    "top1_accuracy",
    "top5_accuracy",
    "tau",
    "learning_rate",
  ):
    np.testing.assert_allclose(
      [m[name] for m in metrics],
      golden[f"logs/{name}"],
      rtol=rtol.get(name, 1e-5),
      atol=1e-7,
      err_msg=name,
    )


@pytest.mark.slow
def test_six_steps_on_one_device_are_the_references():
  # In float64: in float32 a ReLU may fall on the other side of zero by chance,
  # and eight examples are few enough for one such unit to show.
  with jax.enable_x64(True):
    batches = [in_float64(golden_batch(i)) for i in range(6)]
    states, metrics = run_steps(
      on_one_device(), in_float64(start_state()), batches
    )
  assert_steps_agree(states, metrics, ONE)

  outputs, _ = make_network().apply(
    ONE.tree("after6/online_params"),
    ONE.tree("after6/online_state"),
    golden_batch(5)["view1"],
    is_training=False,
  )
  for name in ("projection", "prediction", "logits"):
    np.testing.assert_allclose(
      getattr(outputs, name), ONE[f"eval_after6/{name}"], atol=1e-3
    )


@pytest.mark.slow
def test_six_steps_on_two_devices_are_the_references():
  with jax.enable_x64(True):
    batches = devices.prefetch(in_float64(golden_batch(i)) for i in range(6))
    states, metrics = run_steps(
      on_two_devices(),
      devices.replicate(in_float64(start_state())),
      batches,
    )
  assert_steps_agree(states, metrics, TWO)


def test_two_steps_in_float32_are_the_references():
  batches = [golden_batch(i) for i in range(2)]
  states, _ = run_steps(
    on_two_devices(),
    devices.replicate(start_state()),
    devices.prefetch(batches),
  )
  assert_trees_agree(trace(states[0]), ONE.tree("after1/mu"), 3e-5)
  for name, rtol in (
    ("online_params", 1e-5),
    ("online_state", 1e-5),
    ("target_params", 1e-6),
    ("target_state", 1e-5),
  ):
    assert_trees_agree(
      getattr(states[1], name), TWO.tree(f"after2/{name}"), rtol
    )


def test_one_device_equals_two_with_partly_labelled_batches():
  def batches():
    for i in range(2):
      batch = golden_batch(i)
      # One labelled example on one device, three on the other.
      label = np.where(np.isin(np.arange(8), [0, 5, 6, 7]), batch["label"], -1)
      yield {**batch, "label": label}

  one, metrics_one = run_steps(on_one_device(), start_state(), batches())
  two, metrics_two = run_steps(
    on_two_devices(),
    devices.replicate(start_state()),
    devices.prefetch(batches()),
  )
  chex.assert_trees_all_close(metrics_one, metrics_two, rtol=2e-5, atol=1e-6)
  assert_trees_agree(two[1].online_params, one[1].online_params, 1e-5)
  assert_trees_agree(two[1].online_state, one[1].online_state, 1e-5)


def test_no_gradient_reaches_the_target():
  def loss_of_target(target_params):
    state = start_state()._replace(target_params=target_params)
    return loss_of_batch(state.online_params, state, golden_batch(0))[0]

  grads = jax.grad(loss_of_target)(start_state().target_params)
  assert all(not np.any(g) for g in jax.tree.leaves(grads))


def test_tau_of_one_freezes_the_target():
  batches = [golden_batch(i) for i in range(3)]
  states, _ = run_steps(
    jax.jit(make_learner(tau=1.0).update), start_state(), batches
  )
  chex.assert_trees_all_equal(
    states[-1].target_params, start_state().target_params
  )


@pytest.mark.slow
def test_tau_of_zero_copies_the_online_network():
  batches = [golden_batch(i) for i in range(3)]
  states, _ = run_steps(
    jax.jit(make_learner(tau=0.0).update), start_state(), batches
  )
  chex.assert_trees_all_close(
    states[-1].target_params, states[-1].online_params, rtol=1e-5, atol=1e-7
  )


def test_an_unknown_label_contributes_nothing():
  batch = golden_batch(0)
  unlabelled = {**batch, "label": np.full(8, -1, np.int32)}
  state = start_state()
  grads, (_, _, metrics, _) = gradients_of_batch(
    state.online_params, state, unlabelled
  )
  assert metrics["classif_loss"] == 0
  assert metrics["top1_accuracy"] == 0
  np.testing.assert_allclose(metrics["loss"], metrics["repr_loss"])
  assert not np.any(grads["classifier"]["w"])

  # The labelled half is judged as if it were alone.
  half = {**batch, "label": np.where(np.arange(8) < 4, batch["label"], -1)}
  _, (_, _, metrics, _) = loss_of_batch(state.online_params, state, half)
  logits = ONE["fwd0/online/logits_view1"][:4]
  log_probs = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
  expected = -np.mean(log_probs[np.arange(4), batch["label"][:4]])
  np.testing.assert_allclose(metrics["classif_loss"], expected, rtol=1e-5)


def test_the_online_classifier_changes_no_other_gradient():
  state = start_state()
  batch = golden_batch(0)
  other_labels = {**batch, "label": (batch["label"] + 3) % 10}
  (grads, _), (others, _) = (
    gradients_of_batch(state.online_params, state, b)
    for b in (batch, other_labels)
  )
  assert np.any(grads["classifier"]["w"] != others["classifier"]["w"])
  for module in grads:
    if module != "classifier":
      chex.assert_trees_all_equal(grads[module], others[module])


def test_the_loss_sums_both_directions():
  """Equal networks on swapped views give the same loss; halves would not."""
  batch = golden_batch(0)
  swapped = {**batch, "view1": batch["view2"], "view2": batch["view1"]}
  state = start_state()
  first, second = (
    loss_of_batch(state.online_params, state, b)[1][2]["repr_loss"]
    for b in (batch, swapped)
  )
  np.testing.assert_allclose(first, second, rtol=1e-6)
  assert 0 <= first <= 8


@pytest.mark.parametrize("field", ["online_params", "opt_state"])
def test_the_update_mutates_nothing(field):
  state = start_state()
  before = jax.device_get(getattr(state, field))
  on_one_device()(state, golden_batch(1))
  chex.assert_trees_all_equal(jax.device_get(getattr(state, field)), before)


def partly_labelled():
  """A batch whose two halves have one and three labelled examples."""
  batch = golden_batch(0)
  known = np.isin(np.arange(8), [0, 5, 6, 7])
  return {**batch, "label": np.where(known, batch["label"], -1)}


def frozen_network():
  """The network with batch norm in inference mode: examples do not interact."""

  def apply(params, state, images, is_training, axis_name=None):
    del is_training
    return make_network().apply(params, state, images, False, axis_name)

  return make_network()._replace(apply=apply)


@pytest.mark.slow
def test_micro_batches_change_nothing_where_batch_norm_is_frozen():
  network = frozen_network()
  results = []
  for microbatches in (1, 4):
    one = make_learner(network=network, microbatches=microbatches)
    results.append(jax.jit(one.update)(start_state(), partly_labelled()))
  (whole, whole_metrics), (parts, parts_metrics) = results
  chex.assert_trees_all_close(parts_metrics, whole_metrics, rtol=1e-5)
  for name in ("online_params", "target_params"):
    assert_trees_agree(getattr(parts, name), getattr(whole, name), 1e-6)
  assert_trees_agree(trace(parts), trace(whole), 2e-5)
  assert int(parts.step) == 1


def test_views_are_made_on_the_device_for_one_micro_batch_at_a_time():
  shapes = set()

  def augment(part):
    shapes.add(part["crops"].shape)
    views = part["crops"] / 255
    return {"view1": views, "view2": views[:, ::-1], "label": part["label"]}

  batch = golden_batch(0)
  crops = {"crops": batch["view1"] * 255, "label": batch["label"]}
  one = make_learner(microbatches=2, augment=augment)
  state, metrics = jax.eval_shape(one.update, start_state(), crops)
  assert shapes == {(4, *batch["view1"].shape[1:])}
  chex.assert_trees_all_equal_shapes(state, start_state())
  assert metrics["loss"].shape == ()


@pytest.mark.slow
def test_micro_batches_average_gradients_of_parts():
  """Batch norm sees a part at a time; one optimizer step follows (paper, 5)."""
  state, batch = start_state(), partly_labelled()
  labelled = accumulation.labelled_fraction(batch["label"], axis_name=None)

  @jax.jit
  def gradient(part, state):
    return jax.grad(
      lambda p: learner.loss_fn(make_network(), p, state, part, labelled),
      has_aux=True,
    )(state.online_params)

  total, now = None, state
  for half in (slice(0, 4), slice(4, 8)):
    part = {name: array[half] for name, array in batch.items()}
    grads, (online_state, target_state, *_) = gradient(part, now)
    now = now._replace(online_state=online_state, target_state=target_state)
    total = grads if total is None else jax.tree.map(jnp.add, total, grads)
  total = jax.tree.map(lambda x: x / 2, total)

  two = make_learner(microbatches=2)
  done, _ = jax.jit(two.update)(state, batch)
  # The first step's trace is the gradient after LARS' scaling: decay and all.
  expected, _ = optimizers.lars(lambda step: 1.0, lars_settings()).update(
    total, state.opt_state, state.online_params
  )
  actual = jax.tree.map(jnp.negative, trace(done))
  assert_trees_agree(actual, expected, 3e-5)
  assert_trees_agree(done.online_state, now.online_state, 1e-5)
  assert_trees_agree(done.target_state, now.target_state, 1e-5)


@pytest.mark.slow
def test_micro_batches_on_two_devices_are_those_on_one():
  """A micro-batch is what all devices hold of it."""
  batch = partly_labelled()
  two = devices.pmap_update(make_learner(microbatches=2).update)
  (on_devices,) = devices.prefetch([batch])
  done, metrics = two(start_state(), on_devices)
  # Device 0 holds examples 0-3: the first micro-batch is 0, 1, 4, 5.
  order = np.array([0, 1, 4, 5, 2, 3, 6, 7])
  batch = {name: array[order] for name, array in batch.items()}
  one = jax.jit(make_learner(microbatches=2).update)
  expected, expected_metrics = one(start_state(), batch)
  chex.assert_trees_all_close(metrics, expected_metrics, rtol=2e-5, atol=1e-6)
  assert_trees_agree(done.online_params, expected.online_params, 1e-5)
