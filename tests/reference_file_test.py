"""Checkpoints of the reference become ours, array by array.

`golden/pretrain_tiny.pkl` and its form of 2020 hold the state after the six updates
of `golden/update_steps_1dev.npz`; see golden/README.md.
"""

import json
import pathlib
import pickle
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import config, errors
from byol_jax.config import convert, schema
from byol_jax.interop import (
  architecture,
  encoder_file,
  reference_file,
  reference_run,
  weights,
)
from byol_jax.runtime import checkpoints
from byol_jax.training import build, saved_settings
from tests import command_line
from tests.golden_data import param_trees
from tests.golden_network import UPDATES, trained_variables
from tests.golden_updates import golden_batch, lars_settings, make_learner

FILES = ("pretrain_tiny.pkl", "pretrain_tiny_2020style.pkl")
GOLDEN = pathlib.Path(__file__).parent / "golden"
TREES = ("online_params", "target_params", "online_state", "target_state")


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_holds_the_references_arrays_bit_for_bit(name):
  found = reference_file.read(GOLDEN / name)
  assert found.step == 6
  for tree, expected in (*zip(TREES, TREES, strict=True), ("momentum", "mu")):
    jax.tree.map(
      np.testing.assert_array_equal,
      getattr(found, tree),
      UPDATES.tree(f"after6/{expected}"),
    )


def ours(optimizer="lars", image_size=32):
  """An experiment on another network, whose optimizer is the reference's."""
  settings = convert.typed(config.small_grey_config())
  settings.data.image_size = image_size
  settings.model.encoder.pooling = "mean"
  settings.optimizer = lars_settings()
  settings.optimizer.name = optimizer
  return settings


def imported(tmp_path, name=FILES[0], **options):
  """The configuration and the state of an imported run, and what was told."""
  told = []
  reference_run.write(
    ours(**options), str(GOLDEN / name), tmp_path / "run", told.append
  )
  saved = saved_settings.read(tmp_path / "run")
  keys = convert.flatten(convert.to_json(ours()))
  settings = convert.updated(ours(), {key: saved[key] for key in keys})
  with checkpoints.Checkpoints(tmp_path / "run/checkpoints", keep=1) as run:
    return settings, run.restore(None), told


@pytest.mark.parametrize("name", FILES)
def test_an_imported_network_is_evaluated_as_by_the_reference(tmp_path, name):
  settings, leaves, told = imported(tmp_path, name)
  network = build.build_network(settings, num_classes=10)
  shapes = jax.eval_shape(
    lambda key, x: network.init(key, x, is_training=True),
    jax.random.key(0),
    jnp.zeros((1, 32, 32, 3)),
  )
  params, state = (
    {
      module: {key: leaves[f"{tree}['{module}']['{key}']"] for key in arrays}
      for module, arrays in of_network.items()
    }
    for tree, of_network in zip(TREES[::2], shapes, strict=True)
  )
  images = golden_batch(5)["view1"]
  outputs, _ = network.apply(params, state, images, is_training=False)
  for output in ("projection", "prediction", "logits"):
    np.testing.assert_allclose(
      getattr(outputs, output),
      UPDATES[f"eval_after6/{output}"],
      rtol=1e-5,
      atol=1e-5,
    )
  encoder = encoder_file.load(tmp_path / "run/encoder/encoder.safetensors")
  np.testing.assert_allclose(
    encoder.encode(images), outputs.embedding, atol=1e-5
  )
  assert encoder.step == 6
  # What differs from the experiment is told as flags.
  assert "TinyResNet of width 1, step 6, 10 classes" in told[0]
  assert "--config.model.encoder.name=TinyResNet" in told[-1]
  assert "'--config.data.mean=(0.485, 0.456, 0.406)'" in told[-1]
  assert "data.image_size" not in told[-1]


def test_training_goes_on_as_in_the_reference():
  """From its state after two steps to the one after six, with momentum."""
  found = reference_file.Checkpoint(
    step=2,
    **{tree: UPDATES.tree(f"after2/{tree}") for tree in TREES},
    momentum=UPDATES.tree("after2/mu"),
  )
  state = reference_run.to_state(ours(), found, lambda line: None)
  update = jax.jit(make_learner().update)
  for step in range(2, 6):
    state, metrics = update(state, golden_batch(step))
    expected = UPDATES["logs/learning_rate"][step]
    np.testing.assert_allclose(metrics["learning_rate"], expected, rtol=1e-6)
  assert state.step == 6
  for tree, rtol in (("online_params", 1e-3), ("target_params", 1e-4)):
    for module, arrays in UPDATES.tree(f"after6/{tree}").items():
      for name, array in arrays.items():
        error = np.linalg.norm(getattr(state, tree)[module][name] - array)
        assert error <= rtol * np.linalg.norm(array) + 1e-6, (module, name)


def test_the_momentum_of_another_optimizer_is_not_taken(tmp_path):
  _, leaves, told = imported(tmp_path, optimizer="sgd", image_size=0)
  assert "of lars, not sgd" in "".join(told)
  assert "--config.data.image_size=224" in told[-1]
  momenta = [leaf for path, leaf in leaves.items() if "trace" in path]
  assert momenta
  assert not any(leaf.any() for leaf in momenta)


def test_a_run_is_not_replaced(tmp_path):
  imported(tmp_path)
  with pytest.raises(errors.UserError, match="another --workdir"):
    imported(tmp_path)


@pytest.mark.slow
def test_an_imported_run_is_evaluated_and_trained_on(tmp_path, digits_dir):
  """By the commands of a user, with the flags that the import tells."""
  common = (
    "--config=experiments/quickstart.py",
    f"--workdir={tmp_path / 'run'}",
    "--config.optimizer.name=lars",
    "--config.train.batch_size=8",
    "--config.train.steps=7",
    "--config.evaluation.protocols=()",
    "--config.evaluation.baselines=False",
  )

  def run(*args):
    done = command_line.run(*common, *args, data_dir=digits_dir)
    assert done.returncode == 0, done.stderr
    return done.stdout

  path = GOLDEN / FILES[1]
  told = run("--mode=import", f"--import_from={path}")
  (line,) = [x for x in told.splitlines() if x.startswith("Add to each")]
  flags = shlex.split(line.split(": ", 1)[1])
  run(*flags, "--mode=evaluate", "--config.evaluation.protocols=retrieval")
  results = json.loads((tmp_path / "run/results.json").read_text())
  assert results["retrieval/precision_at_10"]["step"] == 6
  assert results["retrieval/precision_at_10"]["started_from"] == str(path)
  assert "Resuming at step 6 of 7." in run(*flags)
  with checkpoints.Checkpoints(tmp_path / "run/checkpoints", keep=1) as saved:
    assert saved.latest_step() == 7
  assert (tmp_path / "run/figures/curves.png").exists()


def without_memory(tree):
  """Views of one zero for each array of [[module, name, shape, ...], ...]."""
  zeros: dict = {}
  for module, name, shape, *dtype in tree:
    zero = np.zeros((), *dtype)
    zeros.setdefault(module, {})[name] = np.broadcast_to(zero, shape)
  return zeros


@pytest.mark.parametrize(
  "name", ["ResNet50_1x", pytest.param("ResNet200_2x", marks=pytest.mark.slow)]
)
def test_the_published_networks_are_recognised(name):
  golden = param_trees()[name]
  params, state = (without_memory(golden[key]) for key in ("params", "state"))
  found = reference_file.Checkpoint(3, params, state, params, state, params)
  settings = convert.updated(
    schema.Config(),
    architecture.of_encoder(params) | architecture.of_heads(params),
  )
  encoder, _, times = name.partition("_")
  assert settings.model.encoder.name == encoder
  assert settings.model.encoder.width == float(times[0])
  assert settings.model.projector == schema.ProjectorConfig()
  assert settings.model.predictor == schema.PredictorConfig()
  reference_run.check(settings, found, architecture.num_classes(params))


def rewritten(tmp_path, change):
  """A pickle by NumPy, without dill, whose contents were changed."""
  found = reference_file.read(GOLDEN / FILES[0])
  state = {tree: getattr(found, tree) for tree in TREES}
  contents = {
    "experiment_state": state | {"opt_state": ({"mu": found.momentum},)},
    "step": np.int64(6),
    "rng": None,
  }
  change(contents)
  path = tmp_path / "changed.pkl"
  path.write_bytes(pickle.dumps(contents, 2))
  return path


ROOT = "tiny_res_net/~"


def set_array(tree, module, name, value):
  return lambda x: x["experiment_state"][tree][module].update({name: value})


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (lambda x: x.pop("step"), "it holds no step"),
    (lambda x: x.update(step="6"), "its step is no number"),
    (lambda x: x.update(step=2**31), "its step is no number"),
    (lambda x: x.update(experiment_state=[]), "it holds no online_params"),
    (lambda x: x["experiment_state"].pop("target_state"), "no target_state"),
    (lambda x: x["experiment_state"].update(online_state=3), "no dictionary"),
    (
      set_array("target_params", "classifier", "b", np.float32([np.nan] * 10)),
      r"target_params\[classifier\]\[b\] holds NaN",
    ),
    (
      set_array("online_params", "classifier", "b", np.zeros(9, np.float32)),
      r"width 1, 'params/classifier/b' is \(9,\) there and should be \(10,\)",
    ),
    (
      set_array(
        "online_params", f"{ROOT}/initial_conv", "w", np.zeros((5, 5, 3, 64))
      ),
      "convolution has 5 rows",
    ),
    (
      set_array(
        "online_params", f"{ROOT}/initial_conv", "w", np.zeros((7, 7, 3, 32))
      ),
      "for a TinyResNet of width 0.5",
    ),
    (
      lambda x: x["experiment_state"]["online_params"].update(
        {"vit/~/conv": {"w": np.zeros(2)}}
      ),
      "its modules begin with tiny_res_net, vit",
    ),
    (
      lambda x: x["experiment_state"]["online_params"].pop("projector/linear"),
      "projector",
    ),
  ],
)
def test_what_is_no_checkpoint_of_ours_is_one_line(tmp_path, change, reason):
  path = rewritten(tmp_path, change)
  with pytest.raises(errors.UserError, match=reason) as raised:
    reference_run.write(ours(), str(path), tmp_path / "run", lambda line: None)
  assert str(raised.value).startswith(str(path))
  assert "\n" not in str(raised.value)
  assert not (tmp_path / "run").exists()


def test_a_linear_evaluation_gives_its_encoder(tmp_path):
  params, state = trained_variables()

  def change(contents):
    contents["experiment_state"] = {
      "backbone_params": params,
      "backbone_state": state,
      "classif_params": {"linear": params["classifier"]},
    }

  path = rewritten(tmp_path, change)
  told = []
  reference_run.write(ours(), str(path), tmp_path / "run", told.append)
  assert "no target network" in told[-1]
  assert not (tmp_path / "run/checkpoints").exists()
  encoder = encoder_file.load(tmp_path / "run/encoder/encoder.safetensors")
  name = f"{ROOT}/initial_conv"
  np.testing.assert_array_equal(
    encoder.variables[0][name]["w"], params[name]["w"]
  )
  found = weights.read(str(path))
  assert {name.split("/")[1] for name in found.left_out} == {
    "classifier",
    "predictor",
    "projector",
  }


def test_a_file_that_is_cut_off_is_one_line(tmp_path):
  contents = (GOLDEN / FILES[0]).read_bytes()
  for size in (0, 1, 1000, len(contents) // 2, len(contents) - 1):
    path = tmp_path / "cut.pkl"
    path.write_bytes(contents[:size])
    with pytest.raises(errors.UserError, match="cannot be read as") as raised:
      reference_file.read(path)
    assert "\n" not in str(raised.value)
  for path in (tmp_path / "absent.pkl", tmp_path):
    with pytest.raises(errors.UserError, match="cannot be read as"):
      reference_file.read(path)
