"""The linear and fine-tuning protocols against the reference's."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

from byol_jax.evaluation import finetune, heads, linear
from byol_jax.models.encode import make_encode
from byol_jax.runtime import devices
from tests.golden_data import Golden
from tests.golden_network import (
  assert_trees_agree,
  make_network,
  trained_variables,
)

ONE, TWO = Golden("linear_eval"), Golden("linear_eval_2dev")


def head_of(tree):
  return heads.Head(tree["linear"]["w"], tree["linear"]["b"])


def hparams():
  config = ONE.json("finetune/config_json")
  peak = config["lr_schedule_config"]["base_learning_rate"]
  return finetune.HParams(
    learning_rate=peak * config["batch_size"] / 256,
    weight_decay=0.0,
    total_steps=config["max_steps"],
  )


def momentum(opt_state):
  return optax.tree.get(opt_state, "trace")


def images(i):
  return ONE[f"inputs/{i}/images"].reshape(-1, 32, 32, 3) / np.float32(255)


def batches(count):
  for i in range(count):
    yield {
      "image": images(i),
      "label": ONE[f"inputs/{i}/labels"][0],
    }


@pytest.mark.parametrize("golden", [ONE, TWO], ids=["1dev", "2dev"])
def test_four_frozen_steps_are_the_references(golden):
  encode = make_encode(make_network(), *trained_variables())
  layers = heads.stack(head_of(ONE.tree("frozen/start/classif_params")), 1)
  opt_state = jax.vmap(heads.sgd(0.0).init)(layers)
  losses = []
  for step, batch in enumerate(batches(4)):
    layers, opt_state, loss = linear.update(
      layers,
      opt_state,
      golden["frozen/learning_rate"][step : step + 1],
      encode(batch["image"]),
      batch["label"],
    )
    losses.append(loss[0])
    if golden.keys(f"frozen/after{step + 1}/"):
      for name, ours in (("params", layers), ("trace", momentum(opt_state))):
        theirs = head_of(golden.tree(f"frozen/after{step + 1}/classif_{name}"))
        chex.assert_trees_all_close(
          jax.tree.map(lambda x: x[0], ours), theirs, rtol=3e-5, atol=1e-5
        )
  np.testing.assert_allclose(losses, golden["frozen/train_loss"], rtol=1e-5)
  np.testing.assert_allclose(
    encode(images(3)), golden["frozen/eval/embedding"], rtol=1e-4, atol=1e-5
  )


def test_the_heads_learning_rate_falls_as_the_references():
  """Constant vectors: after a step, the layer moved by the rate alone."""
  vectors, labels = np.ones((4, 2), np.float32), np.zeros(4, np.int32)

  def moved(steps):
    layers = linear.fit(
      ((vectors, labels) for _ in range(9)),
      learning_rates=[hparams().learning_rate],
      total_steps=steps,
      num_features=2,
      num_classes=2,
    )
    return float(layers.b[0, 0])

  assert moved(1) == pytest.approx(0.25 * 0.5 * 1.9)  # Nesterov: g + 0.9 g.


def check_finetuned(state, golden, step, rtol):
  assert_trees_agree(
    {"linear": state.head._asdict()},
    golden.tree(f"finetune/after{step}/classif_params"),
    rtol,
  )
  theirs = golden.tree(f"finetune/after{step}/backbone_params")
  ours = {name: state.params[name] for name in theirs}
  assert_trees_agree(ours, theirs, rtol)
  assert theirs  # And the rest of the network did not move.
  for name, arrays in trained_variables()[0].items():
    if name not in theirs:
      chex.assert_trees_all_equal(state.params[name], arrays)


def check_momentum(state, golden, step, rtol):
  theirs = golden.tree(f"finetune/after{step}/backbone_trace")
  ours = {name: momentum(state.opt_state)[0][name] for name in theirs}
  assert_trees_agree(ours, theirs, rtol)


def start():
  head = head_of(ONE.tree("finetune/start/classif_params"))
  return finetune.new_state(hparams(), *trained_variables(), head)


def test_two_finetuning_steps_are_the_references():
  update = jax.jit(functools.partial(finetune.update, make_network()))
  state, losses = start(), []
  for batch in batches(2):
    state, loss = update(state, batch)
    losses.append(loss)
  np.testing.assert_allclose(losses, ONE["finetune/train_loss"], rtol=2e-5)
  check_finetuned(state, ONE, 2, 2e-5)
  check_momentum(state, ONE, 2, 2e-4)
  theirs = ONE.tree("finetune/after2/backbone_state")
  ours = {name: state.state[name] for name in theirs}
  assert_trees_agree(ours, theirs, 2e-5)


@pytest.mark.slow
def test_two_finetuning_steps_on_two_devices_are_the_references():
  """Each from the reference's own state before it.

  Batch norm sees four images there: over both steps, one ReLU of ours falls on
  the other side of zero.
  """

  def one(state, batch, axis_name):
    return finetune.update(
      make_network(),
      state,
      batch,
      axis_name,
      shared_statistics=False,
    )

  update = devices.pmap_update(one)
  first, second = devices.prefetch(batches(2))
  state, loss = update(devices.replicate(start()), first)
  state, losses = jax.device_get(state), [loss]
  check_finetuned(state, TWO, 1, 1e-4)
  check_momentum(state, TWO, 1, 3e-4)
  after = "finetune/after1"
  theirs = {
    name: TWO.tree(f"{after}/backbone_{name}") for name in ("params", "trace")
  }
  zeros = jax.tree.map(np.zeros_like, momentum(state.opt_state)[0])
  trace = (zeros | theirs["trace"], head_of(TWO.tree(f"{after}/classif_trace")))
  state = state._replace(
    params=state.params | theirs["params"],
    head=head_of(TWO.tree(f"{after}/classif_params")),
    opt_state=optax.tree.set(state.opt_state, trace=trace),
  )
  state, loss = update(devices.replicate(state), second)
  losses.append(loss)
  np.testing.assert_allclose(losses, TWO["finetune/train_loss"], rtol=2e-5)
  check_finetuned(jax.device_get(state), TWO, 2, 2e-5)


@pytest.mark.slow
def test_two_devices_finetune_as_one():
  fit = finetune.make_fit(make_network())
  settings = hparams()._replace(total_steps=2, weight_decay=0.1)

  def new_state():
    head = heads.new_head(8, 10)
    return finetune.new_state(settings, *trained_variables(), head)

  on_two = fit(new_state(), batches(2), settings.total_steps)
  state = new_state()
  update = jax.jit(functools.partial(finetune.update, make_network()))
  for batch in batches(2):
    state, _ = update(state, batch)
  assert_trees_agree(on_two.params, state.params, 2e-5)
  chex.assert_trees_all_close(on_two.head, state.head, rtol=1e-4, atol=1e-5)


def test_weight_decay_spares_biases_and_batch_norm():
  update = jax.jit(functools.partial(finetune.update, make_network()))
  (batch,) = batches(1)
  after = [
    update(start()._replace(hparams=hparams()._replace(weight_decay=d)), batch)[
      0
    ]
    for d in (0.0, 1.0)
  ]
  for name, arrays in after[0].params.items():
    for key in arrays:
      differs = np.any(after[0].params[name][key] != after[1].params[name][key])
      assert differs == (key == "w"), (name, key)


def test_the_rule_for_running_statistics_is_the_papers():
  assert finetune.batch_norm_decay_rate(1) == 0.9
  assert finetune.batch_norm_decay_rate(100) == 0.9
  assert finetune.batch_norm_decay_rate(1000) == pytest.approx(0.99)
