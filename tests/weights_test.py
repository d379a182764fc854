"""Every place that pretraining can start from gives its encoder, or one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.interop import (
  encoder_arrays,
  encoder_file,
  encoder_settings,
  torch_names,
  weights,
)
from byol_jax.training import build, saved_settings
from tests import encoder_cases
from tests.eval_cases import prepare, small_config
from tests.network_cases import PATCH_ENCODERS


def arrays_of(found):
  by_name = encoder_arrays.by_name
  return by_name("params", found.params) | by_name("state", found.statistics)


def assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name)


def resnet(name="ResNet18", width=0.25, **options):
  """Random arrays of an encoder by our names, and its settings."""
  values = {"name": name, "width": width} | options
  config = convert.updated(
    schema.Config(),
    {f"model.encoder.{key}": value for key, value in values.items()},
  )
  encoder = build.build_encoder(config)
  shapes = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 64, 64, 3)), is_training=True),
    jax.random.key(0),
  )
  random = np.random.default_rng(0)
  arrays = {}
  for path, x in sorted(arrays_of(weights.Weights({}, *shapes, 0)).items()):
    arrays[path] = random.standard_normal(x.shape, np.float32)
    if path.endswith("/counter"):
      arrays[path] = np.asarray(2**20, np.int32)
    elif path.endswith("/hidden"):  # As an import leaves it.
      arrays[path] = arrays[path.removesuffix("hidden") + "average"]
  return arrays, config


def save_torch(path, arrays, metadata=None, **extra):
  arrays = torch_names.to_torch(arrays) | extra
  arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
  safetensors.numpy.save_file(arrays, path, metadata)


def test_a_resnet_with_torchvisions_names(tmp_path):
  arrays, _ = resnet("ResNet50", 0.5)
  path = tmp_path / "model.safetensors"
  extra = {
    "fc.weight": np.zeros((10, 1024), np.float32),
    "bn1.num_batches_tracked": np.zeros((), np.int64),
  }
  save_torch(path, arrays, {"format": "pt"}, **extra)
  found = weights.read(str(path))
  assert_same(arrays_of(found), arrays)
  assert found.settings == {
    "data.channels": 3,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "model.batch_norm.eps": 1e-5,
    "model.encoder.name": "ResNet50",
    "model.encoder.width": 0.5,
    "model.encoder.version": "v1",
    "model.encoder.stem": "imagenet",
    "model.encoder.pooling": "mean",
    "model.encoder.padding": "torch",
  }
  assert found.step is None
  assert set(found.left_out) == set(extra)
  assert found.taken == len(torch_names.to_torch(arrays))
  assert found.added == ()


def test_a_resnet_for_grey_images(tmp_path):
  arrays, _ = resnet("ResNet10")
  name = "params/res_net10/~/initial_conv/w"
  arrays[name] = arrays[name][:, :, :1]
  path = tmp_path / "model.safetensors"
  save_torch(path, arrays)
  found = weights.read(str(path))
  assert_same(arrays_of(found), arrays)
  assert found.settings["data.channels"] == 1
  np.testing.assert_allclose(found.settings["data.mean"], [0.449])


def test_identity_shortcuts_become_projections(tmp_path):
  arrays, _ = resnet("ResNet18")
  block = "res_net18/~/block_group_0/~/block_0/~/shortcut"
  without = {name: x for name, x in arrays.items() if block not in name}
  path = tmp_path / "model.safetensors"
  save_torch(path, without)
  found = weights.read(str(path))
  assert set(found.added) == arrays.keys() - without.keys()
  assert {n: arrays_of(found)[n] for n in without}.keys() == without.keys()
  np.testing.assert_array_equal(
    arrays_of(found)[f"params/{block}_conv/w"], np.eye(16)[None, None]
  )


def test_what_was_exported_for_torch_keeps_its_settings(tmp_path):
  arrays, config = resnet("TinyResNet", padding="same", stem="cifar")
  config.data.mean = (0.1, 0.2, 0.3)
  settings = encoder_settings.of(config)
  path = tmp_path / "model.safetensors"
  metadata = {"format": "pt", "config": json.dumps(settings), "step": "7"}
  save_torch(path, arrays, metadata)
  found = weights.read(str(path))
  assert_same(arrays_of(found), arrays)
  assert found.settings == settings
  assert found.step == 7
  for text in ("{", "[]", '{"model.encoder.width": -1.0}', '{"a": 1}'):
    save_torch(path, arrays, metadata | {"config": text})
    with pytest.raises(errors.UserError, match="read as an encoder"):
      weights.read(str(path))


def test_our_own_file(tmp_path):
  path = tmp_path / "encoder.safetensors"
  encoder_cases.save(path)
  found = weights.read(str(path))
  expected = encoder_file.load(path)
  jax.tree.map(
    np.testing.assert_array_equal,
    (found.params, found.statistics),
    expected.variables,
  )
  assert found.step == 7
  assert found.left_out == ()


def test_a_vit_is_read_from_our_own_file_but_not_from_timms(tmp_path):
  encoder_cases.save(tmp_path / "own", **PATCH_ENCODERS["ViT"])
  found = weights.read(str(tmp_path / "own"))
  assert found.settings["model.encoder.name"] == "ViTMicro"
  assert found.taken == len(jax.tree.leaves(found.params)) > 0
  metadata = {"config": json.dumps(found.settings), "step": "7"}
  arrays = {"norm.weight": np.ones(2, np.float32)}
  safetensors.numpy.save_file(arrays, tmp_path / "timms", metadata)
  with pytest.raises(errors.UserError, match="its ViTMicro is stored for timm"):
    weights.read(str(tmp_path / "timms"))


@pytest.mark.slow
def test_the_newest_checkpoint_of_a_workdir(tmp_path):
  cfg = small_config(tmp_path)
  run = prepare(tmp_path, cfg)
  with pytest.raises(errors.UserError, match="it holds no checkpoint"):
    weights.read(str(run.workdir))
  saved_settings.write(run.workdir, run.config, "")
  initial = jax.device_get(run.initial_state())
  with run.open_checkpoints() as saved:
    for step in (3, 5):
      state = jax.tree.map(
        lambda x, step=step: x + np.asarray(step, x.dtype), initial
      )
      saved.save(step, state)
  found = weights.read(str(run.workdir))
  assert_same(arrays_of(found), encoder_arrays.of_state(state))
  assert found.step == 5
  assert found.settings == encoder_settings.of(run.config)
  heads = {name.split("/")[1] for name in found.left_out}
  assert heads == {"projector", "predictor", "classifier"}


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (lambda x: x.pop("layer1.0.conv1.weight"), "as none of TinyResNet"),
    (lambda x: x.pop("layer1.0.bn1.weight"), "is absent there and should be"),
    (lambda x: x.pop("conv1.weight"), "initial_conv/w"),
    (
      lambda x: x.update({"layer1.0.se.weight": np.zeros((2, 2, 1, 1))}),
      "'layer1.0.se.weight' of shape",
    ),
    (
      lambda x: x.update({"bn1.weight": np.full(16, np.nan, np.float32)}),
      "holds NaN",
    ),
    # A ResNeXt's and a wide ResNet's.
    (
      lambda x: x.update({"layer2.0.conv2.weight": np.zeros((32, 4, 3, 3))}),
      r"ResNet18 of width 0.25, '.*/conv_1/w' is \(3, 3, 4, 32\) there",
    ),
    (lambda x: [x.pop(key) for key in list(x)[1:]], "it has"),
    (
      lambda x: x.update({"conv1.weight": np.zeros((16, 4, 7, 7))}),
      "takes 4 channels",
    ),
    (
      lambda x: x.update({"conv1.weight": np.zeros((16, 3, 5, 5))}),
      "has 5 rows",
    ),
  ],
)
def test_what_is_no_plain_resnet_is_one_line(tmp_path, change, reason):
  theirs = torch_names.to_torch(resnet("ResNet18")[0])
  change(theirs)
  path = tmp_path / "model.safetensors"
  safetensors.numpy.save_file(
    {name: np.ascontiguousarray(x) for name, x in theirs.items()}, path
  )
  with pytest.raises(errors.UserError, match=reason) as raised:
    weights.read(str(path))
  assert str(raised.value).startswith(f"{path} cannot be read as an encoder")
  assert "\n" not in str(raised.value)


def test_a_type_that_numpy_lacks_is_one_line(tmp_path):
  about = {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}
  header = json.dumps({"conv1.weight": about}).encode()
  path = tmp_path / "model.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
  with pytest.raises(errors.UserError, match="is of type F8_E4M3"):
    weights.read(str(path))


def test_a_file_of_an_unknown_kind_is_one_line(tmp_path):
  for name in ("a.safetensors", "a.pth", "a.pkl", "a"):
    (tmp_path / name).write_bytes(b"something else that is no encoder")
    for path in (tmp_path / name, tmp_path / f"absent_{name}"):
      with pytest.raises(errors.UserError, match="cannot be read") as raised:
        weights.read(str(path))
      assert "\n" not in str(raised.value)
