"""An encoder gives the same features in every format that it is exported in."""

import importlib.util
import json
import re
import subprocess
import sys

import jax
import jax.export
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

import byol_jax
from byol_jax import config, errors
from byol_jax.config import convert
from byol_jax.data import source as source_lib
from byol_jax.evaluation import results
from byol_jax.interop import (
  encoder_arrays,
  exports,
  hub_folder,
  torch_files,
  torch_names,
)
from byol_jax.learning.learner import TrainState
from byol_jax.training import build
from tests import command_line, encoder_cases, eval_cases, pages
from tests.network_cases import IMAGENET_MEAN, IMAGENET_STD, PATCH_ENCODERS
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


def random_state(cfg):
  """A state whose encoder has random parameters and running statistics."""
  network = build.build_encoder(cfg)
  side, channels = cfg.data.image_size, cfg.data.channels
  image = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
  shapes = jax.eval_shape(
    lambda key, x: network.init(key, x, is_training=True),
    jax.random.key(0),
    image,
  )
  random = np.random.RandomState(0)

  def draw(x):
    if x.shape[:3] in ((), (1, 1, 1)):  # Of batch norm: variances are positive.
      values = random.uniform(0.5, 1.5, x.shape)
    else:
      values = random.randn(*x.shape) / np.sqrt(np.prod(x.shape[:-1]))
    return np.asarray(values, x.dtype)

  params, statistics = jax.tree.map(draw, shapes)
  return TrainState(np.int32(7), params, {}, statistics, {}, ())


def export(prepared, folder, cfg):
  """Writes a random encoder of a configuration; returns its state."""
  state = random_state(cfg)
  run = prepared._replace(config=cfg, workdir=folder)
  exports.write(run, state, lambda line: None)
  return state


def photographs(side):
  """Two real images, [2, side, side, 3] uint8."""
  images = sklearn.datasets.load_sample_images().images
  return np.stack(
    [PIL.Image.fromarray(x[:, :427]).resize((side, side)) for x in images]
  )


def random_images(side, channels):
  """Two images of noise, uint8."""
  shape = (2, side, side, channels)
  return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def in_jax(cfg, state, images):
  """The features of images of bytes, by the network itself."""
  network = build.build_encoder(cfg)

  @jax.jit
  def encode(variables, images):
    encoded, _ = network.apply(*variables, images / 255, is_training=False)
    return encoded.embedding

  return np.asarray(
    encode(encoder_arrays.variables(state), images.astype(np.float32))
  )


def normalised(images):
  mean, std = np.array([IMAGENET_MEAN, IMAGENET_STD])[:, : images.shape[-1]]
  return ((images / 255 - mean) / std).astype(np.float32)


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
  import torchvision
  from safetensors.torch import load_file

  cfg = settings(side, "torchvision", **encoder)
  state = export(prepared, tmp_path, cfg)
  folder = tmp_path / "encoder" / "torchvision"
  images = photographs(side)
  expected = in_jax(cfg, state, images)
  with torch.inference_mode():
    found = load_module(folder).load()(channels_first(images)).numpy()
  assert_same(found, expected)
  if encoder == {"name": "ResNet50", "padding": "torch"}:
    model = torchvision.models.resnet50()
    model.fc = torch.nn.Identity()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.inference_mode():
      plain = model.eval()(channels_first(normalised(images))).numpy()
    assert_same(plain, expected)


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
  cfg = settings(side, name=name, padding="torch")
  state = random_state(cfg)
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
  with torch.inference_mode():
    expected = model(channels_first(normalised(images))).numpy()
  assert_same(in_jax(cfg, state, images), expected)


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize(
  ("side", "channels", "encoder"),
  [
    (224, 3, {"name": "ViTTiny"}),
    (224, 3, {"name": "ConvNeXtAtto"}),
    (24, 1, PATCH_ENCODERS["ViT"]),
    (24, 1, PATCH_ENCODERS["ConvNeXt"]),
    (96, 3, {"name": "ConvNeXtAtto", "width": 0.2, "patch": 6}),
  ],
  ids=str,
)
def test_timms_vits_and_convnexts_give_the_same_features(
  prepared, tmp_path, side, channels, encoder
):
  import timm
  import torch

  cfg = settings(side, "timm", channels=channels, **encoder)
  state = export(prepared, tmp_path, cfg)
  images = random_images(side, channels)
  folder = tmp_path / "encoder" / "timm"
  model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
  with torch.inference_mode():
    found = model(channels_first(normalised(images))).numpy()
  assert_same(found, in_jax(cfg, state, images))


@needs_extra
@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "encoder"),
  [
    ("torchvision", {"name": "ResNet18", "padding": "same"}),
    ("onnx", {"name": "ResNet18", "padding": "same"}),
    ("timm", {"name": "ResNet50", "padding": "torch"}),
    ("timm", PATCH_ENCODERS["ViT"]),
    ("timm", PATCH_ENCODERS["ConvNeXt"]),
  ],
  ids=str,
)
def test_wide_views_give_the_same_features(prepared, tmp_path, kind, encoder):
  import onnxruntime
  import timm
  import torch

  cfg = settings(24, kind, **encoder)
  cfg.data.image_width = 56
  state = export(prepared, tmp_path, cfg)
  images = random_images(56, 3)[:, :24]
  folder = tmp_path / "encoder" / kind
  with torch.inference_mode():
    if kind == "torchvision":
      found = load_module(folder).load()(channels_first(images)).numpy()
    elif kind == "timm":
      model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
      found = model(channels_first(normalised(images))).numpy()
    else:
      session = onnxruntime.InferenceSession(folder.parent / "encoder.onnx")
      (found,) = session.run(["features"], {"images": images})
  assert_same(found, in_jax(cfg, state, images))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("family", "stages"),
  [
    ("ViT", ["stem", *(f"block_{i}" for i in range(6)), "final"]),
    ("ConvNeXt", ["stem", *(f"group_{i}" for i in range(4)), "final"]),
  ],
)
def test_vits_and_convnexts_are_files_and_programs(
  prepared, tmp_path, family, stages
):
  cfg = settings(24, "haiku", "stablehlo", **PATCH_ENCODERS[family])
  state = export(prepared, tmp_path, cfg)
  images = random_images(24, 3)
  expected = in_jax(cfg, state, images)
  encoder = byol_jax.load_encoder(tmp_path)
  assert_same(encoder.encode(images), expected)
  assert_same(encoder.feature_map(images).mean((1, 2)), expected)
  shapes = jax.eval_shape(
    lambda images: (
      encoder.network.apply(*encoder.variables, images, is_training=False)[
        0
      ].stages
    ),
    jax.ShapeDtypeStruct(images.shape, np.float32),
  )
  assert set(shapes) == set(stages)
  path = tmp_path / "encoder" / "encoder.stablehlo"
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  assert_same(np.asarray(program.call(images)), expected)


# Every option that decides what an encoder computes: side, channels, the rest.
VARIANTS = {
  "same": (47, 3, {"padding": "same"}),
  "torch": (46, 3, {"padding": "torch"}),
  "grey": (9, 1, {"stem": "cifar", "pooling": "flatten"}),
  "v2": (32, 3, {"version": "v2"}),
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
def test_every_variant_is_the_same_in_every_format(prepared, tmp_path):
  """Programs run where neither this package nor Haiku can be imported."""
  import torch

  expected = {}
  for name, (side, channels, options) in VARIANTS.items():
    formats = ("stablehlo", "onnx", "torchvision")[: 1 if name == "v2" else 3]
    cfg = settings(
      side, *formats, channels=channels, name="TinyResNet", **options
    )
    state = export(prepared, tmp_path / name, cfg)
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (7, side, side, channels)).astype(np.uint8)
    folder = tmp_path / name / "encoder"
    np.save(folder / "images.npy", images)
    expected[name] = in_jax(cfg, state, images)
    if name != "v2":
      network = load_module(folder / "torchvision").load()
      with torch.inference_mode():
        assert_same(network(channels_first(images)).numpy(), expected[name])
        assert network.feature_map(channels_first(images)).shape[0] == 7
  folders = [tmp_path / name / "encoder" for name in VARIANTS]
  subprocess.run(
    [sys.executable, "-c", _WITHOUT_BYOL_JAX, *folders], check=True, cwd="/"
  )
  found = list(tmp_path.glob("*/encoder/*_[17].npy"))
  assert len(found) == 2 * (4 + 3)
  for path in found:
    features = np.load(path)
    assert_same(features, expected[path.parts[-3]][: len(features)])


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
def test_the_code_of_a_card_loads_the_encoder(prepared, tmp_path, monkeypatch):
  monkeypatch.setattr(torch_files, "_IMAGES_TO_COMPARE", 4)
  cfg = settings(32, "hub", "timm", name="ResNet50")
  export(prepared, tmp_path, cfg)
  folder = tmp_path / "encoder" / "hub"
  card = (folder / "README.md").read_text()
  assert "Step 7 was not evaluated." in card
  # The images on which the card tells the effect of the padding.
  crop = source_lib.CentreCrop((32, 32), cfg.data.eval_crop)
  batch = next(prepared.source.eval_batches("test", crop, batch_size=4))
  images = np.round(batch["image"] * 255).astype(np.uint8)
  monkeypatch.chdir(folder)
  monkeypatch.syspath_prepend(str(folder))
  monkeypatch.delitem(sys.modules, "torch_encoder", raising=False)
  scope, found = {"images": images}, []
  for block in code_of(card):
    exec(block, scope)
    if "features" in scope:
      found.append(np.asarray(scope.pop("features")))
  in_jax, in_torch, in_torchvision, in_timm = found
  assert_same(in_torch, in_jax)
  assert_same(in_timm, in_torchvision)
  distance = np.linalg.norm(in_timm - in_jax, axis=1)
  distance = distance / np.linalg.norm(in_jax, axis=1)
  told = re.search(r"by (\S+)% of their norm\s+on average", card)
  assert float(told[1]) / 100 == pytest.approx(distance.mean(), rel=0.1)
  monkeypatch.chdir(folder.parent / "timm")
  exec(code_of(card)[-1], scope)
  np.testing.assert_array_equal(scope["features"], in_timm)


@needs_extra
def test_the_recipe_for_pytorch_loads_the_encoder(
  prepared, tmp_path, monkeypatch
):
  page = (command_line.ROOT / "docs" / "encoder.md").read_text()
  (block,) = (x for x in pages.code(page) if "import torch_encoder" in x)
  cfg = settings(224, "torchvision", name="TinyResNet")
  state = export(prepared, tmp_path / "runs" / "folder", cfg)
  images = photographs(224)[:1]
  PIL.Image.fromarray(images[0]).save(tmp_path / "query.jpg", quality=100)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", [*sys.path])
  monkeypatch.delitem(sys.modules, "torch_encoder", raising=False)
  scope = {}
  exec(block.replace("0.875", "1.0"), scope)
  assert scope["features"].shape == (1, 8)
  stored = np.asarray(PIL.Image.open("query.jpg"))[None]
  assert_same(scope["features"].numpy(), in_jax(cfg, state, stored))
  readme = (command_line.ROOT / "README.md").read_text()
  (block,) = (x for x in pages.code(readme) if "import torch_encoder" in x)
  exec(block, again := {})
  assert_same(
    again["network"](scope["batch"]).detach().numpy(), scope["features"].numpy()
  )


def test_a_card_without_another_padding_says_that_all_loaders_agree(prepared):
  cfg = settings(32, name="ResNet50", padding="torch")
  card = hub_folder.Card(prepared._replace(config=cfg), 7, 2048, 1, None)
  text = hub_folder.card_text(card)
  assert "torchvision and timm compute the same." in text
  assert len(code_of(text)) == 5
  assert json.loads(hub_folder.config_text(card))["architecture"] == "resnet50"


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
    *(
      (
        ("haiku", x),
        {"name": "ViTTiny"},
        "=ViTTiny is no ResNet, which the formats",
      )
      for x in ("torchvision", "onnx", "hub")
    ),
    (
      ("timm",),
      {"name": "ViTTiny", "pooling": "flatten"},
      "timm has no ViTTiny with model.encoder.pooling=flatten;",
    ),
    (
      ("timm",),
      {"name": "ConvNeXtAtto", "stem": "cifar"},
      "timm has no ConvNeXtAtto with patches of 2; leave only haiku and stablehlo",
    ),
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
