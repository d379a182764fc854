"""A file holds the encoder that was trained; any other file is refused."""

import errno
import json
import os
import pathlib
import tracemalloc

import jax
import numpy as np
import pytest
import safetensors.numpy

from byol_jax import errors
from byol_jax.cli import modes
from byol_jax.config import convert
from byol_jax.evaluation import results, runner
from byol_jax.interop import encoder_file
from byol_jax.models import networks
from byol_jax.models.encode import make_encode
from byol_jax.runtime import claim
from byol_jax.training import build, runs
from tests import encoder_cases, eval_cases
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
  assert loaded[1:4] == (8, 3, 7)
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
      r"params/other/w' is \(2,\) F64 there and should be absent",
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


@pytest.fixture
def small(tmp_path):
  """The path of a small encoder."""
  path = tmp_path / "small.safetensors"
  encoder_cases.save(path)
  return path


def test_a_flipped_byte_is_refused_or_changes_nothing(small):
  contents = small.read_bytes()
  data = 8 + int.from_bytes(contents[:8], "little")
  expected = encoder_file.load(small)
  random = np.random.RandomState(0)
  positions = [
    *range(8),
    *random.randint(8, data, 60),
    *random.randint(data, len(contents), 10),
  ]
  for position in positions:
    spoilt = bytearray(contents)
    spoilt[position] ^= random.randint(1, 256)
    small.write_bytes(spoilt)
    if position >= data:
      with pytest.raises(errors.UserError, match="differs from its checksum"):
        encoder_file.load(small)
      continue
    message = ""
    try:
      loaded = encoder_file.load(small)
    except errors.UserError as error:
      message = str(error)
    if message:
      assert str(small) in message
      assert "\n" not in message
    else:
      assert loaded[1:4] == expected[1:4]
      jax.tree.map(
        np.testing.assert_array_equal, loaded.variables, expected.variables
      )


def rewrite(path, metadata=None, settings=None, arrays=lambda x: x):
  """Replaces parts of a file, without checksums, as earlier versions wrote it."""
  with safetensors.safe_open(path, "numpy") as file:
    old = file.metadata()
  del old["checksums"]
  old["config"] = json.dumps(json.loads(old["config"]) | (settings or {}))
  safetensors.numpy.save_file(
    arrays(safetensors.numpy.load_file(path)), path, old | (metadata or {})
  )


def test_a_file_without_checksums_is_read(small):
  expected = encoder_file.load(small)
  rewrite(small)
  loaded = encoder_file.load(small)
  jax.tree.map(
    np.testing.assert_array_equal, loaded.variables, expected.variables
  )


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"metadata": {"step": "-1"}}, "step=-1 must be"),
    ({"metadata": {"step": "9" * 10}}, "step=9999999999 must be"),
    ({"metadata": {"step": "1e3"}}, "step=1e3 must be"),
    ({"metadata": {"config": "{"}}, "config is no JSON"),
    ({"metadata": {"config": "[" * 100_000}}, "config is no JSON"),
    ({"metadata": {"config": "[]"}}, "config is no dictionary"),
    ({"metadata": {"checksums": "{}"}}, "step differs from its checksum"),
    ({"metadata": {"format": "x\n" * 10_000}}, "is of format x x x"),
    (
      {"settings": {"data.mean": "0.5"}},
      "data.mean is of the wrong type: '0.5'",
    ),
    ({"settings": {"data.mean": [0, 0, "x"]}}, "is of the wrong type"),
    ({"settings": {"data.std": [1, 1, float("nan")]}}, "is of the wrong type"),
    ({"settings": {"data.mean": []}}, "data.mean is not given"),
    ({"settings": {"data.image_size": 10**6}}, "must be at most 4096"),
    ({"settings": {"data.image_size": True}}, "is of the wrong type"),
    ({"settings": {"model.encoder.width": 1e9}}, "must be at most 64"),
    ({"settings": {"model.encoder.width": 10**400}}, "is of the wrong type"),
    ({"settings": {"model.encoder.name": "../x"}}, "'../x' is unknown"),
    ({"settings": {"train.precision": "float8"}}, "'float8' is unknown"),
    ({"settings": {"seed": 1}}, "the setting 'seed' is unknown"),
    (
      {"arrays": lambda x: {k: v.astype(np.float16) for k, v in x.items()}},
      "F16 there and should be",
    ),
    (
      {"arrays": lambda x: x | {"x\x1b[31m\n": np.zeros(1)}},
      r"should be absent",
    ),
  ],
)
def test_what_no_export_wrote_is_one_line(small, changes, expected):
  rewrite(small, **changes)
  with pytest.raises(errors.UserError, match=expected) as raised:
    encoder_file.load(small)
  assert str(raised.value).isprintable()
  assert len(str(raised.value)) < 1000


def test_weights_that_are_not_finite_are_named(small):
  name = "params/tiny_res_net/~/initial_conv/w"
  for value in (np.nan, np.inf):
    rewritten = {name: np.full((7, 7, 3, 64), value, np.float32)}
    encoder_cases.save(small)
    rewrite(small, arrays=lambda x, new=rewritten: x | new)
    with pytest.raises(errors.UserError, match=f"{name} holds NaN"):
      encoder_file.load(small)


def test_weights_that_are_not_finite_are_not_exported(run, state):
  spoilt = jax.tree.map(lambda x: x + np.float32("nan"), state.online_params)
  with pytest.raises(errors.UserError, match="step 7 holds NaN or infinity"):
    write(run, state._replace(online_params=spoilt))
  assert not (run.workdir / "encoder").exists()


def test_a_header_makes_nothing_large_before_it_is_checked(small):
  """The largest settings ask for 180 GB of parameters."""
  rewrite(
    small,
    settings={
      "data.image_size": 4096,
      "model.encoder.name": "ResNet18",
      "model.encoder.width": 64,
    },
  )
  tracemalloc.start()
  try:
    with pytest.raises(errors.UserError, match="should be"):
      encoder_file.load(small)
    assert tracemalloc.get_traced_memory()[1] < 50e6
  finally:
    tracemalloc.stop()
  many = {
    f"params/m/{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for i in range(100_000)
  }
  header = json.dumps(many).encode()
  small.write_bytes(len(header).to_bytes(8, "little") + header)
  with pytest.raises(errors.UserError, match="its header would have"):
    encoder_file.load(small)


@pytest.mark.parametrize("has_begun", ["claim", "checkpoint"])
def test_the_results_of_a_run_are_not_replaced_by_those_of_a_file(
  run, state, has_begun
):
  path = write(run, state)
  if has_begun == "claim":
    (run.workdir / claim.FILE).touch()
  else:
    with run.open_checkpoints() as saved:
      saved.save(7, state)
  options = eval_cases.options(run.workdir, encoder=str(path))
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
