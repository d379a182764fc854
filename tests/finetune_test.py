"""The linear and fine-tuning protocols against the reference's."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

from byol_jax.evaluation import finetune, linear
from byol_jax.models.encode import make_encode
from byol_jax.runtime import devices
from tests import learner_test
from tests.golden_data import Golden

ONE, TWO = Golden("linear_eval"), Golden("linear_eval_2dev")
BACKBONE = learner_test.ONE  # Its last state is what these start from.


def backbone():
  return (
    BACKBONE.tree("after6/online_params"),
    BACKBONE.tree("after6/online_state"),
  )


def head_of(tree):
  return linear.Heads(tree["linear"]["w"], tree["linear"]["b"])


def recipe():
  config = ONE.json("finetune/config_json")
  peak = config["lr_schedule_config"]["base_learning_rate"]
  return finetune.Recipe(
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
  encode = make_encode(learner_test.make_network(), *backbone())
  heads = jax.tree.map(
    lambda x: x[None], head_of(ONE.tree("frozen/start/classif_params"))
  )
  opt_state = jax.vmap(linear.sgd(0.0).init)(heads)
  losses = []
  for step, batch in enumerate(batches(4)):
    heads, opt_state, loss = linear.update(
      heads,
      opt_state,
      golden["frozen/learning_rate"][step : step + 1],
      encode(batch["image"]),
      batch["label"],
    )
    losses.append(loss[0])
    if golden.keys(f"frozen/after{step + 1}/"):
      for name, ours in (("params", heads), ("trace", momentum(opt_state))):
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
    heads = linear.fit(
      ((vectors, labels) for _ in range(9)),
      learning_rates=[recipe().learning_rate],
      total_steps=steps,
      num_features=2,
      num_classes=2,
    )
    return float(heads.b[0, 0])

  assert moved(1) == pytest.approx(0.25 * 0.5 * 1.9)  # Nesterov: g + 0.9 g.


def check_finetuned(state, golden, step, rtol):
  learner_test.assert_trees_agree(
    {"linear": state.head._asdict()},
    golden.tree(f"finetune/after{step}/classif_params"),
    rtol,
  )
  theirs = golden.tree(f"finetune/after{step}/backbone_params")
  ours = {name: state.params[name] for name in theirs}
  learner_test.assert_trees_agree(ours, theirs, rtol)
  assert theirs  # And the rest of the network did not move.
  for name, arrays in backbone()[0].items():
    if name not in theirs:
      chex.assert_trees_all_equal(state.params[name], arrays)


def check_momentum(state, golden, step, rtol):
  theirs = golden.tree(f"finetune/after{step}/backbone_trace")
  ours = {name: momentum(state.opt_state)[0][name] for name in theirs}
  learner_test.assert_trees_agree(ours, theirs, rtol)


def start():
  head = head_of(ONE.tree("finetune/start/classif_params"))
  return finetune.new_state(recipe(), *backbone(), head)


def test_two_finetuning_steps_are_the_references():
  update = jax.jit(
    functools.partial(finetune.update, learner_test.make_network())
  )
  state, losses = start(), []
  for batch in batches(2):
    state, loss = update(state, batch)
    losses.append(loss)
  np.testing.assert_allclose(losses, ONE["finetune/train_loss"], rtol=2e-5)
  check_finetuned(state, ONE, 2, 2e-5)
  check_momentum(state, ONE, 2, 2e-4)
  theirs = ONE.tree("finetune/after2/backbone_state")
  ours = {name: state.state[name] for name in theirs}
  learner_test.assert_trees_agree(ours, theirs, 2e-5)


@pytest.mark.slow
def test_two_finetuning_steps_on_two_devices_are_the_references():
  """Each from the reference's own state before it.

  Batch norm sees four images there: over both steps, one ReLU of ours falls on
  the other side of zero.
  """

  def one(state, batch, axis_name):
    return finetune.update(
      learner_test.make_network(),
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
  state = state._replace(
    params=state.params | theirs["params"],
    head=head_of(TWO.tree(f"{after}/classif_params")),
    opt_state=optax.tree.set(
      state.opt_state,
      trace=(
        zeros | theirs["trace"],
        head_of(TWO.tree(f"{after}/classif_trace")),
      ),
    ),
  )
  state, loss = update(devices.replicate(state), second)
  losses.append(loss)
  np.testing.assert_allclose(losses, TWO["finetune/train_loss"], rtol=2e-5)
  check_finetuned(jax.device_get(state), TWO, 2, 2e-5)


@pytest.mark.slow
def test_two_devices_finetune_as_one():
  fit = finetune.make_fit(learner_test.make_network())
  on_two = fit(
    *backbone(),
    batches(2),
    recipe()._replace(total_steps=2, weight_decay=0.1),
    num_features=8,
    num_classes=10,
  )
  state = finetune.new_state(
    recipe()._replace(total_steps=2, weight_decay=0.1),
    *backbone(),
    linear.new_head(8, 10),
  )
  update = jax.jit(
    functools.partial(finetune.update, learner_test.make_network())
  )
  for batch in batches(2):
    state, _ = update(state, batch)
  learner_test.assert_trees_agree(on_two.params, state.params, 2e-5)
  chex.assert_trees_all_close(on_two.head, state.head, rtol=1e-4, atol=1e-5)


def test_weight_decay_spares_biases_and_batch_norm():
  update = jax.jit(
    functools.partial(finetune.update, learner_test.make_network())
  )
  (batch,) = batches(1)
  after = [
    update(start()._replace(recipe=recipe()._replace(weight_decay=d)), batch)[0]
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


@pytest.mark.parametrize(
  ("wanted", "of_each"), [(50, 5), (1, 1), (30, 3), (450, 45)]
)
def test_subsets_are_stratified_and_seeded(wanted, of_each):
  labels = np.repeat(np.arange(10), 50)
  chosen = finetune.stratified(labels, wanted, seed=0)
  np.testing.assert_array_equal(np.bincount(labels[chosen]), [of_each] * 10)
  assert len(set(chosen)) == len(chosen)
  again = finetune.stratified(labels, wanted, seed=0)
  np.testing.assert_array_equal(chosen, again)
  assert np.any(chosen != finetune.stratified(labels, wanted, seed=1))
