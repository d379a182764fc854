"""An encoder gives the same features in every format that it is exported in."""

import functools
import importlib.util
import json
import re
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

from byol_jax import config, errors
from byol_jax.config import convert
from byol_jax.data import source as source_lib
from byol_jax.evaluation import results
from byol_jax.interop import (
  encoder_arrays,
  exports,
  torch_files,
  torch_names,
)
from byol_jax.training import build
from tests import encoder_cases, eval_cases
from tests.torch_cases import needs_extra


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A run on coloured squares, whose configuration tests replace."""
  folder = tmp_path_factory.mktemp("data")
  return eval_cases.prepare(folder, eval_cases.small_config(folder))


def settings(side, *formats, channels=3, **encoder):
  """A resolved configuration."""
  found = convert.typed(config.default_config())
  found.data.image_size, found.data.channels = side, channels
  found.data.mean = found.data.mean[:channels]
  found.data.std = found.data.std[:channels]
  found.export.formats = formats
  for name, value in encoder.items():
    setattr(found.model.encoder, name, value)
  return found


def export(prepared, folder, cfg):
  """Writes a random encoder of a configuration; returns its state."""
  state = encoder_cases.state(cfg)
  run = prepared._replace(config=cfg, workdir=folder)
  exports.write(run, state, lambda line: None)
  return state


def photographs(side):
  """Two real images, [2, side, side, 3] uint8."""
  images = sklearn.datasets.load_sample_images().images
  return np.stack(
    [PIL.Image.fromarray(x[:, :427]).resize((side, side)) for x in images]
  )


@functools.cache
def compiled(side, **encoder):
  network = build.build_encoder(settings(side, **encoder))

  def encode(variables, images):
    encoded, _ = network.apply(*variables, images / 255, is_training=False)
    return encoded.embedding

  return jax.jit(encode)


def in_jax(state, images, **encoder):
  return np.asarray(
    compiled(images.shape[1], **encoder)(
      encoder_arrays.variables(state), images.astype(np.float32)
    )
  )


def channels_first(images):
  import torch

  return torch.from_numpy(images).permute(0, 3, 1, 2)


def load_module(folder):
  """The module torch_encoder of a folder."""
  path = folder / torch_files.MODULE_FILE
  spec = importlib.util.spec_from_file_location("torch_encoder", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def assert_same(found, expected):
  """Within 1e-4 of the norm of each image's features."""
  assert found.shape == expected.shape
  distance = np.linalg.norm(found - expected, axis=1)
  assert np.all(distance < 1e-4 * np.linalg.norm(expected, axis=1))


# 199 becomes 100, 50, 25, 13 and 7: of odd sides and of even ones.
@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize(
  ("side", "encoder"),
  [
    (224, {"name": "ResNet18", "padding": "same"}),
    (199, {"name": "ResNet18", "padding": "torch"}),
    (199, {"name": "ResNet50", "padding": "same"}),
    (224, {"name": "ResNet50", "padding": "torch"}),
    (224, {"name": "ResNet50", "padding": "same", "width": 2.0}),
  ],
  ids=str,
)
def test_features_in_torch_are_those_in_jax(prepared, tmp_path, side, encoder):
  import torch

  state = export(prepared, tmp_path, settings(side, "torchvision", **encoder))
  images = photographs(side)
  network = load_module(tmp_path / "encoder" / "torchvision").load()
  with torch.inference_mode():
    found = network(channels_first(images)).numpy()
  assert_same(found, in_jax(state, images, **encoder))


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "side"), [("ResNet18", 199), ("ResNet50", 224)]
)
def test_weights_of_torchvision_give_its_features(name, side):
  import torch
  import torchvision

  torch.manual_seed(0)
  model = getattr(torchvision.models, name.lower())().eval()
  for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      for values in (module.running_var, module.weight.data):
        values.uniform_(0.5, 1.5)
      module.running_mean.normal_()
      module.bias.data.normal_()
  model.fc = torch.nn.Identity()
  arrays = {k: v.numpy() for k, v in model.state_dict().items()}
  encoder = {"name": name, "padding": "torch"}
  state = encoder_cases.state(settings(side, **encoder))
  root = next(iter(state.online_params)).split("/")[0]
  imported = torch_names.from_torch(arrays, root).arrays
  params, statistics = (
    {
      module: {
        leaf: imported[f"{kind}/{module}/{leaf}"].reshape(value.shape)
        for leaf, value in leaves.items()
      }
      for module, leaves in tree.items()
    }
    for kind, tree in (
      ("params", state.online_params),
      ("state", state.online_state),
    )
  )
  state = state._replace(online_params=params, online_state=statistics)
  images = photographs(side)
  mean, std = (
    np.asarray(x, np.float32)
    for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
  )
  normalised = ((images / np.float32(255)) - mean) / std
  with torch.inference_mode():
    expected = model(channels_first(normalised)).numpy()
  assert_same(in_jax(state, images, **encoder), expected)


# Every option that decides what an encoder computes.
VARIANTS = {
  "same": (47, {"padding": "same"}),
  "torch": (46, {"padding": "torch", "space_to_depth": True}),
  "cifar": (9, {"stem": "cifar", "pooling": "flatten"}),
  "v2": (32, {"version": "v2"}),
}
_WITHOUT_BYOL_JAX = """
import pathlib, sys
sys.modules["byol_jax"] = sys.modules["haiku"] = None  # Importing them fails.
import numpy as np
from jax import export
for folder in map(pathlib.Path, sys.argv[1:]):
  images = np.load(folder / "images.npy")
  call = export.deserialize(bytearray((folder / "encoder.stablehlo").read_bytes())).call
  functions = {"stablehlo": call}
  if (folder / "encoder.onnx").exists():
    import onnxruntime
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    functions["onnx"] = lambda x: session.run(["features"], {"images": x})[0]
  for name, function in functions.items():
    for count in (1, 7):
      np.save(folder / f"{name}_{count}.npy", function(images[:count]))
"""


@needs_extra
@pytest.mark.slow
def test_programs_run_where_this_package_is_not(prepared, tmp_path):
  expected = {}
  for name, (side, options) in VARIANTS.items():
    encoder = {"name": "TinyResNet"} | options
    formats = ("stablehlo",) if name == "v2" else ("stablehlo", "onnx")
    folder = tmp_path / name
    state = export(prepared, folder, settings(side, *formats, **encoder))
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (7, side, side, 3)).astype(np.uint8)
    np.save(folder / "encoder" / "images.npy", images)
    expected[name] = in_jax(state, images, **encoder)
  folders = [tmp_path / name / "encoder" for name in VARIANTS]
  subprocess.run(
    [sys.executable, "-c", _WITHOUT_BYOL_JAX, *folders], check=True, cwd="/"
  )
  found = sorted(
    str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*/*_[17].npy")
  )
  assert len(found) == 2 * (len(VARIANTS) + len(VARIANTS) - 1)
  for path in found:
    features = np.load(tmp_path / path)
    assert_same(features, expected[path.split("/")[0]][: len(features)])


@needs_extra
@pytest.mark.slow
def test_variants_and_grey_images_are_the_same_in_torch(prepared, tmp_path):
  import torch

  for name, (side, options) in VARIANTS.items():
    if name != "v2":
      encoder = {"name": "TinyResNet"} | options
      cfg = settings(side, "torchvision", channels=1, **encoder)
      state = export(prepared, tmp_path, cfg)
      images = np.random.RandomState(0).rand(2, side, side, 1)
      images = images.astype(np.float32)
      encoded, _ = build.build_encoder(cfg).apply(
        *encoder_arrays.variables(state), images, is_training=False
      )
      network = load_module(tmp_path / "encoder" / "torchvision").load()
      with torch.inference_mode():
        found = network(channels_first(images)).numpy()
        feature_map = network.feature_map(channels_first(images)).numpy()
      assert_same(found, np.asarray(encoded.embedding))
      np.testing.assert_allclose(
        feature_map.transpose(0, 2, 3, 1),
        encoded.feature_map,
        rtol=1e-2,
        atol=1e-3,
      )


def add_results(workdir):
  """Results of the exported step, 7, and of another."""
  result = {
    "value": 0.75,
    "protocol": "knn",
    "metric": "top1",
    "dataset": "cifar10",
    "train_split": "train",
    "split": "test",
    "examples": 31,
    "step": 7,
    "network": "online",
    "interval": (0.6, 0.9),
  }
  baseline = {"step": 0, "network": "none", "value": 0.5}
  results.add(
    workdir,
    {
      "knn/top1": result,
      "linear/top1": result | {"step": 6, "value": 0.875},
      "baseline/pixels_knn_top1": result | baseline,
    },
  )


def code_of(card):
  return re.findall(r"^```python\n(.*?)^```", card, re.M | re.S)


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize("padding", ["same", "torch"])
def test_the_code_of_a_card_loads_the_encoder(
  prepared, tmp_path, padding, monkeypatch
):
  side, encoder = 64, {"name": "ResNet50", "padding": padding}
  tmp_path.joinpath("run").mkdir()
  add_results(tmp_path / "run")
  cfg = settings(side, "hub", "timm", **encoder)
  state = export(prepared, tmp_path / "run", cfg)
  folder = tmp_path / "run" / "encoder" / "hub"
  card = (folder / "README.md").read_text()
  # The images on which the card tells the effect of the padding.
  crop = source_lib.CentreCrop(side, cfg.data.eval_crop)
  batch = next(prepared.source.eval_batches("test", crop, batch_size=31))
  images = np.round(batch["image"] * 255).astype(np.uint8)
  monkeypatch.chdir(folder)
  monkeypatch.syspath_prepend(str(folder))
  monkeypatch.delitem(sys.modules, "torch_encoder", raising=False)
  scope, found = {"images": images}, []
  for block in code_of(card):
    exec(block, scope)
    if "features" in scope:
      found.append(np.asarray(scope.pop("features")))
  jax_features, torch_features, torchvision_features, timm_features = found
  assert_same(jax_features, in_jax(state, images, **encoder))
  assert_same(torch_features, jax_features)
  assert_same(timm_features, torchvision_features)
  monkeypatch.chdir(folder.parent / "timm")
  exec(code_of(card)[-1], scope)
  np.testing.assert_array_equal(scope["features"], timm_features)
  if padding == "torch":
    assert "torchvision and timm compute the same." in card
    assert_same(timm_features, jax_features)
    return
  distance = np.linalg.norm(timm_features - jax_features, axis=1)
  distance = distance / np.linalg.norm(jax_features, axis=1)
  told = re.search(r"by (\S+)% of their norm\s+on average", card)
  assert float(told[1]) / 100 == pytest.approx(distance.mean(), rel=0.1)


def test_a_card_tells_what_is_known(prepared, tmp_path):
  add_results(tmp_path)
  cfg = settings(32, "hub", name="TinyResNet", init_from="/home/me/first.bin")
  cfg.export.licence = "cc-by-4.0"
  cfg.train.batch_size = 53
  export(prepared, tmp_path, cfg)
  folder = tmp_path / "encoder" / "hub"
  card = " ".join((folder / "README.md").read_text().split())
  for text in (
    "license: cc-by-4.0",
    "| data | cifar10, train, 53 images |",
    "| budget | 7 updates of 53 images, that is 371 images or 7.0 epochs |",
    "| started from | first.bin |",
    "| knn/top1 | 0.7500 | 0.6 to 0.9 | cifar10, test, 31 images | cifar10, train",
    "| baseline/pixels_knn_top1 | 0.5000 |",
    "no such architecture (model.encoder.name=TinyResNet)",
  ):
    assert text in card, text
  assert "0.8750" not in card  # Of another step.
  assert "/home/me" not in card
  ours = json.loads((folder / "config.json").read_text())["byol_jax"]
  assert ours["step"] == 7
  assert ours["config"]["data.image_size"] == 32
  (block, _) = code_of((folder / "README.md").read_text())
  scope = {"images": encoder_cases.images(2)}
  exec(block.replace('"encoder.', f'"{folder}/encoder.'), scope)
  assert scope["features"].shape == (2, 8)


@pytest.mark.parametrize(
  ("formats", "encoder", "expected"),
  [
    (
      ("haiku", "tf"),
      {},
      "export.formats 'tf' is unknown; choose one of: haiku",
    ),
    (
      ("haiku", "timm"),
      {"name": "ResNet18"},
      "timm has no ResNet with model.enc",
    ),
    (("haiku", "timm"), {"width": 2.0}, "with model.encoder.width=2.0;"),
    (("haiku", "hub"), {"version": "v2"}, "version=v2 has no place"),
  ],
)
def test_what_cannot_be_written_is_told_first(
  prepared, tmp_path, formats, encoder, expected
):
  cfg = settings(32, *formats, **encoder)
  run = prepared._replace(config=cfg, workdir=tmp_path)
  with pytest.raises(errors.UserError, match=expected):
    exports.write(run, None, print)
  assert not list(tmp_path.iterdir())
