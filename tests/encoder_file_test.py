"""A file holds the encoder that was trained; any other file is refused."""

import errno
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from byol_jax import errors
from byol_jax.cli import flags, modes
from byol_jax.config import convert
from byol_jax.evaluation import results, runner
from byol_jax.interop import encoder_file
from byol_jax.models import networks
from byol_jax.models.encode import make_encode
from byol_jax.training import build, runs
from tests.eval_cases import prepare, small_config


@pytest.fixture
def run(tmp_path):
  return prepare(tmp_path, small_config(tmp_path))


@pytest.fixture
def state(run):
  """A state that no initialiser makes, so that it cannot be made by accident."""
  random = np.random.RandomState(0)
  initial = jax.device_get(run.initial_state())
  return jax.tree.map(
    lambda x: np.abs(x + random.randn(*x.shape)).astype(x.dtype), initial
  )._replace(step=np.int32(7))


def write(run, state):
  path = run.workdir / "encoder" / "encoder.safetensors"
  encoder_file.write(path, run.config, state)
  return path


def test_a_file_holds_the_online_encoder_and_nothing_else(run, state):
  path = write(run, state)
  assert [file.name for file in path.parent.iterdir()] == [path.name]
  images = np.random.RandomState(1).rand(5, 8, 8, 3).astype(np.float32)
  encode = make_encode(
    build.build_network(run.config, run.num_classes),
    state.online_params,
    state.online_state,
  )
  loaded = encoder_file.load(path)
  np.testing.assert_array_equal(loaded.encode(images), encode(images))
  assert loaded[1:] == (8, 3, 7)
  arrays = safetensors.numpy.load_file(path)
  parts = {name.split("/")[1] for name in arrays}
  assert parts == {"tiny_res_net"}
  count = sum(
    array.size
    for module, of_module in state.online_params.items()
    for array in of_module.values()
    if networks.is_of_encoder(module)
  )
  params = [x for name, x in arrays.items() if name.startswith("params/")]
  assert sum(array.size for array in params) == count


@pytest.mark.slow
def test_an_encoder_file_is_evaluated_as_its_checkpoint(run, state, tmp_path):
  run.config.evaluation.protocols = ("knn", "linear", "finetune")
  run.config.evaluation.finetune.rate_count = 1
  run.config.evaluation.finetune.decay_count = 0
  of_state = runner.evaluate(run, state)
  path = write(run, state)
  # The configuration names another network with other heads.
  cfg = convert.typed(run.config)
  cfg.model.encoder.name, cfg.model.encoder.width = "ResNet18", 2.0
  cfg.model.projector.hidden_size, cfg.data.image_size = 8, 16
  cfg.data.mean, cfg.data.std = (), ()
  cfg.train.precision = "bfloat16"
  cfg = encoder_file.config_for(cfg, path)
  other = runs.prepare(cfg, tmp_path / "other")
  of_file = runner.evaluate(
    other,
    encoder_file.restore(path, other.config, other.num_classes),
    encoder=str(path),
  )
  assert of_file.keys() == of_state.keys()
  for name in ("knn/top1", "linear/top1", "finetune/top1"):
    expected = of_state[name] | {"encoder": str(path)}
    assert of_file[name] == expected
  assert "encoder" not in of_file["baseline/random_knn_top1"]
  # Neither its own training nor another file can add results here.
  for encoder in ("", "another.safetensors"):
    with pytest.raises(errors.UserError, match="choose another --workdir"):
      results.check_same_encoder(other, encoder)
  results.check_same_encoder(other, str(path))


def change(path, to):
  """Replaces the arrays of a file by a function of them."""
  with safetensors.safe_open(path, "numpy") as file:
    metadata = file.metadata()
  arrays = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file(to(arrays), path, metadata)


@pytest.mark.parametrize(
  ("spoil", "expected"),
  [
    (lambda path: path.unlink(), "No such file"),
    (lambda path: path.write_bytes(b"PK"), "header too small"),
    (lambda path: path.write_bytes(path.read_bytes()[:-9]), "incomplete"),
    (
      lambda path: safetensors.numpy.save_file({"w": np.zeros(1)}, path),
      "format None",
    ),
    (
      lambda path: change(path, lambda a: a | {"params/other/w": np.zeros(2)}),
      r"params/other/w is \(2,\) there and should be absent",
    ),
    (
      lambda path: change(path, lambda a: dict(list(a.items())[1:])),
      "is absent there and should be",
    ),
  ],
  ids=["missing", "no safetensors", "cut off", "foreign", "more", "less"],
)
def test_a_file_that_is_no_encoder_is_one_line(run, state, spoil, expected):
  path = write(run, state)
  spoil(path)
  with pytest.raises(errors.UserError, match=expected) as raised:
    encoder_file.load(path)
  assert str(path) in str(raised.value)
  assert "\n" not in str(raised.value)


def test_the_results_of_a_run_are_not_replaced_by_those_of_a_file(run, state):
  path = write(run, state)
  with run.open_checkpoints() as saved:
    saved.save(7, state)
  options = flags.Options(
    mode="evaluate",
    workdir=run.workdir,
    step=None,
    encoder=str(path),
    watch=False,
    split="",
    coordinator="",
    num_processes=None,
    process_id=None,
  )
  with pytest.raises(errors.UserError, match="another --workdir"):
    modes.MODES["evaluate"](run, options)


def test_a_full_disk_is_one_line_and_costs_no_earlier_file(
  run, state, monkeypatch
):
  path = write(run, state)
  before = path.read_bytes()

  def full(self, contents):
    self.open("wb").write(contents[:100])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(pathlib.Path, "write_bytes", full)
  with pytest.raises(errors.UserError, match="No space left"):
    write(run, state._replace(step=np.int32(8)))
  assert path.read_bytes() == before
  assert list(path.parent.iterdir()) == [path]
