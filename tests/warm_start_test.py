"""Pretraining begins with an encoder file, and runs go on after their end."""

import functools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from byol_jax import errors
from byol_jax.cli import messages
from byol_jax.config import convert
from byol_jax.evaluation import results, runner
from byol_jax.interop import (
  encoder_arrays,
  encoder_file,
  torch_names,
  warm_start,
)
from byol_jax.models import networks
from byol_jax.runtime import console, packing, writers
from byol_jax.training import (
  build,
  data_streams,
  loop,
  runs,
  saved_settings,
  workdir_files,
)
from tests.eval_cases import prepare, small_config


@pytest.fixture
def other(tmp_path):
  """The run that the encoder comes from."""
  return prepare(tmp_path, small_config(tmp_path))


@pytest.fixture
def exported(other):
  """Its state, which no initialiser makes, and its file."""
  random = np.random.RandomState(0)
  state = jax.tree.map(
    lambda x: np.abs(x + random.randn(*x.shape)).astype(x.dtype),
    jax.device_get(other.initial_state()),
  )._replace(step=np.int32(7))
  path = other.workdir / "encoder.safetensors"
  encoder_file.write(path, other.config, state)
  return state, path


@pytest.fixture
def cfg(tmp_path, exported):
  """A configuration with other images and heads, which starts from the file."""
  cfg = small_config(tmp_path)
  cfg.data.image_size = 12
  cfg.data.mean, cfg.data.std = (), ()
  cfg.model.encoder.stem = "auto"
  cfg.model.encoder.init_from = str(exported[1])
  cfg.model.projector.hidden_size = 8
  return cfg


def settled(cfg, workdir):
  """The configuration with the settings that it leaves to its encoder file."""
  sent = packing.pack(warm_start.open_settings(cfg, workdir))
  return convert.updated(cfg, packing.unpack(sent))  # As other processes do.


def open_run(cfg, workdir):
  return runs.prepare(settled(cfg, workdir), workdir)


def test_both_encoders_are_the_files_and_all_else_is_new(
  cfg, exported, tmp_path
):
  state, path = exported
  run = open_run(cfg, tmp_path / "new")
  told = []
  started, origin = warm_start.start(run, told.append)
  new = run.initial_state()
  for name, of_file in (
    ("online_params", state.online_params),
    ("target_params", state.online_params),
    ("online_state", state.online_state),
    ("target_state", state.online_state),
  ):
    for module, leaves in getattr(started, name).items():
      expected = getattr(new, name)[module]
      if networks.is_of_encoder(module):
        expected = of_file[module]
      jax.tree.map(np.testing.assert_array_equal, leaves, expected)
  assert int(started.step) == 0
  jax.tree.map(np.testing.assert_array_equal, started.opt_state, new.opt_state)
  taken = len(encoder_arrays.of_state(state))
  made = len(jax.tree.leaves((new.online_params, new.online_state))) - taken
  (line,) = told
  assert f"step 7: all its {taken} arrays are taken; {made} arrays" in line
  assert origin["file"] == str(path)
  assert origin["step"] == 7
  assert len(origin["sha256"]) == 64


def test_what_a_run_leaves_open_is_the_files(cfg, exported, tmp_path):
  path = exported[1]
  theirs = encoder_file.config_for(cfg, path)
  ours = settled(cfg, tmp_path / "new")
  assert ours.model.encoder == theirs.model.encoder
  assert (ours.data.mean, ours.data.std) == (
    theirs.data.mean,
    theirs.data.std,
  )
  assert ours.data.image_size == 12
  cfg.data.mean, cfg.data.std = (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)
  told = []
  warm_start.start(open_run(cfg, tmp_path / "new"), told.append)
  assert told[1].startswith(f"Note: {path} was trained with data.mean=")
  assert "(0.1, 0.2, 0.3)" in told[1]


def test_an_open_architecture_is_the_encoders(cfg, exported, tmp_path):
  cfg.model.encoder.name = "auto"
  cfg.model.encoder.width = 3.0
  cfg.model.encoder.pooling = "mean"
  workdir = tmp_path / "new"
  theirs = encoder_file.config_for(cfg, exported[1])
  run = open_run(cfg, workdir)
  assert run.config.model.encoder == theirs.model.encoder
  saved_settings.write(workdir, run.config, "", {})
  (workdir / "checkpoints" / "1").mkdir(parents=True)
  exported[1].unlink()  # The run holds what it needs.
  assert open_run(cfg, workdir).config == run.config
  cfg.model.encoder.init_from = ""
  with pytest.raises(
    errors.UserError, match="auto is that of a trained"
  ) as info:
    open_run(cfg, tmp_path / "another")
  assert "one of TinyResNet, ResNet10" in str(info.value)


@pytest.mark.slow
def test_what_a_resnet_of_torchvision_has_and_lacks_is_told(cfg, tmp_path):
  cfg.model.encoder.name = "ResNet10"
  cfg.model.encoder.pooling = "mean"
  cfg.model.encoder.padding = "torch"
  run = open_run(settled_without_file(cfg), tmp_path / "new")
  new = jax.device_get(run.initial_state())
  theirs = torch_names.to_torch(encoder_arrays.of_state(new))
  of_first = [key for key in theirs if key.startswith("layer1.0.downsample")]
  for key in of_first:  # torchvision has none there.
    del theirs[key]
  theirs |= {
    "fc.weight": np.zeros((10, 128), np.float32),
    "fc.bias": np.zeros(10, np.float32),
    "bn1.num_batches_tracked": np.zeros((), np.int64),
    "layer1.0.bn1.num_batches_tracked": np.zeros((), np.int64),
  }
  path = tmp_path / "resnet10.safetensors"
  safetensors.numpy.save_file(
    {key: np.ascontiguousarray(x) for key, x in theirs.items()}, path
  )
  cfg.model.encoder.init_from = str(path)
  told = []
  started, origin = warm_start.start(
    open_run(cfg, tmp_path / "new"), told.append
  )
  taken = len(theirs) - 4
  assert told[0].startswith(f"Encoder from {path}: all its {taken} arrays are")
  assert sorted(told[1].removeprefix("Left out: ")[:-1].split(", ")) == [
    "fc.bias",
    "fc.weight",
    "num_batches_tracked (2 arrays)",
  ]
  assert told[2].startswith("New in the encoder: 9 arrays of projections")
  assert origin.keys() == {"file", "sha256"}
  for tree in ("online_params", "target_params"):
    module = "res_net10/~/block_group_1/~/block_0/~/conv_0"
    np.testing.assert_array_equal(
      getattr(started, tree)[module]["w"], new.online_params[module]["w"]
    )


def settled_without_file(cfg):
  """The configuration of a run of the same architecture that starts anew."""
  other = convert.typed(cfg)
  other.model.encoder.init_from = ""
  return other


@pytest.mark.slow
def test_a_workdir_is_told_with_the_heads_that_are_left_out(
  cfg, exported, other, tmp_path
):
  state, _ = exported
  saved_settings.write(other.workdir, other.config, "")
  with other.open_checkpoints() as saved:
    saved.save(7, state)
  cfg.model.encoder.init_from = str(other.workdir)
  told = []
  run = open_run(cfg, tmp_path / "new")
  started, origin = warm_start.start(run, told.append)
  for name, array in encoder_arrays.of_state(state).items():
    np.testing.assert_array_equal(
      encoder_arrays.of_state(started)[name], array, err_msg=name
    )
  assert "step 7" in told[0]
  heads = [text.split(" ")[0] for text in told[1].split(": ")[1].split(", ")]
  assert sorted(heads) == ["classifier", "predictor", "projector"]
  # It goes on changing, so it has no checksum.
  assert origin == {"file": str(other.workdir), "step": 7}


@pytest.mark.parametrize(
  ("key", "value", "theirs"),
  [
    ("model.encoder.name", "ResNet18", "TinyResNet"),
    ("model.encoder.width", 1.0, 0.25),
    ("model.encoder.pooling", "mean", "flatten"),
    ("model.encoder.stem", "imagenet", "cifar"),
    ("data.channels", 1, 3),
    ("model.batch_norm.eps", 1e-3, 1e-5),
  ],
)
def test_another_architecture_is_one_line(cfg, key, value, theirs, tmp_path):
  cfg.update_from_flattened_dict({key: value})
  with pytest.raises(errors.UserError) as info:
    warm_start.open_settings(cfg, tmp_path / "new")
  message = str(info.value)
  assert message.startswith(f"{key}={value!r} does not fit the encoder in ")
  assert f"set --config.{key}={theirs}," in message
  assert "\n" not in message


def test_a_file_that_is_no_encoder_is_one_line(cfg, tmp_path):
  for path in (tmp_path / "absent", tmp_path):
    cfg.model.encoder.init_from = str(path)
    with pytest.raises(errors.UserError, match="read as an encoder") as info:
      warm_start.open_settings(cfg, tmp_path / "new")
    assert "\n" not in str(info.value)


def test_a_run_that_has_begun_keeps_the_file_that_it_started_from(
  cfg, exported, tmp_path, monkeypatch
):
  path = exported[1]
  run = open_run(cfg, tmp_path / "new")
  begun = warm_start.start(run, lambda line: None)
  saved_settings.write(
    run.workdir, run.config, "", {"started_from": begun.started_from}
  )
  (run.workdir / "checkpoints" / "1").mkdir(parents=True)
  monkeypatch.chdir(path.parent)
  for given in (str(path), path.name, str(tmp_path / "moved"), ""):
    cfg.model.encoder.init_from = given
    assert open_run(cfg, run.workdir).config == run.config
  path.write_bytes(path.read_bytes() + b"!")
  cfg.model.encoder.init_from = path.name
  with pytest.raises(errors.UserError, match="holds another encoder; leave"):
    open_run(cfg, run.workdir)


def test_a_pipe_is_no_encoder(cfg, tmp_path):
  """A program that opens it would wait for another."""
  os.mkfifo(tmp_path / "pipe")
  cfg.model.encoder.init_from = str(tmp_path / "pipe")
  with pytest.raises(errors.UserError, match="it is no regular file"):
    warm_start.open_settings(cfg, tmp_path / "new")
  assert warm_start._sha256(str(tmp_path / "pipe")) == ""


@pytest.mark.slow
def test_a_run_starts_from_a_file_and_is_trained_on_after_its_end(
  cfg, exported, tmp_path, capsys, monkeypatch
):
  """It ends, is made longer, is killed in between and resumes."""
  workdir = tmp_path / "new"
  cfg.train.steps = 4
  cfg.log.every_steps = 1
  cfg.checkpoint.every_steps = 2
  cfg.evaluation.protocols = ("knn",)
  cfg.evaluation.baselines = False

  def train():
    run = open_run(cfg, workdir)
    start = functools.partial(warm_start.start, tell=console.say)
    state, _ = loop.pretrain(run, start, messages.describe_start)
    runner.evaluate(run, state)
    return run

  def records():
    text = (workdir / "config.json").read_text()
    settings = json.loads(text)
    (result,) = results.read(workdir).values()
    return settings["train"]["steps"], settings["history"], result

  short = train()
  assert "Encoder from" in capsys.readouterr().out
  steps, history, result = records()
  assert (steps, result["step"]) == (4, 4)
  assert result["started_from"] == history["started_from"]["file"]
  pathlib.Path(exported[1]).unlink()  # It is in the checkpoint.

  cfg.train.steps = 8
  batches = data_streams.train_batches

  def cut_off(*args):
    stream = batches(*args)
    yield from (next(stream) for _ in range(3))
    raise ConnectionAbortedError

  monkeypatch.setattr(data_streams, "train_batches", cut_off)
  with pytest.raises(ConnectionAbortedError):
    train()
  monkeypatch.undo()
  told = capsys.readouterr().out
  (old_rate, old_tau), (rate, tau) = (
    [
      float(schedule(4))
      for schedule in build.make_schedules(run.config, run.plan)
    ]
    for run in (short, open_run(cfg, workdir))
  )
  assert "Training on from step 4, as the run of 4 steps now has 8" in told
  assert f"rate of {rate:.4g} there instead of {old_rate:.4g}" in told
  assert f"tau of {tau:.6g} instead of {old_tau:.6g}." in told
  assert results.is_complete(short, ["knn"])
  assert not results.is_complete(open_run(cfg, workdir), ["knn"])

  long = train()
  assert "Resuming at step 6 of 8." in capsys.readouterr().out
  assert results.is_complete(long, ["knn"])
  steps, new_history, result = records()
  assert (steps, result["step"]) == (8, 8)
  assert new_history == history | {"extended_at": [4]}
  history_lines = (workdir / "evaluations.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in history_lines] == [4, 8]
  rows = writers.read_jsonl(workdir / workdir_files.METRICS_FILE)
  assert [row["step"] for row in rows] == [*range(1, 9)]
  for row in rows:
    # A row holds the rate of the update that led to its step.
    run = short if row["step"] <= 4 else long
    expected = build.make_schedules(run.config, run.plan)[0](row["step"] - 1)
    np.testing.assert_allclose(row["train/learning_rate"], expected, rtol=1e-5)

  cfg.train.steps = 7
  with pytest.raises(errors.UserError, match=r"step 8 of 8, not of 7"):
    open_run(cfg, workdir)
  cfg.train.steps = 8
  cfg.model.encoder.init_from = ""
  assert open_run(cfg, workdir).config == long.config
