"""The commands, keys, links and code of README.md and docs/ are right."""

import json
import pathlib
import re
import shlex
import zipfile

import jax
import numpy as np
import PIL.Image
import pytest

from byol_jax import config
from byol_jax.config import convert
from byol_jax.models import encoders
from byol_jax.training import build
from tests import command_line, pages

ROOT = command_line.ROOT
PAGES = ("README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
TEXT = "\n".join((ROOT / page).read_text() for page in PAGES)
# In indented blocks and in tables.
COMMANDS = sorted(
  {
    command.strip()
    for pattern in (
      r"^    .*python -m byol_jax\.main (.*)$",
      r"`python -m byol_jax\.main ([^`]+)`",
    )
    for command in re.findall(pattern, TEXT, re.M)
    if "--config=" in command and "\\" not in command
  }
)
QUICKSTART = "--config=experiments/quickstart.py"
EXPORT = f"{QUICKSTART} --mode=export"
# Commands that are not run in miniature: one test runs the first two as they are;
# the others need several processes, the folder of a sweep, more images, or a file.
ELSEWHERE = re.compile(
  rf"^{re.escape(QUICKSTART)}$|^{re.escape(EXPORT)}$"
  r"|--coordinator|--compare|\$seed|runs/sweeps|fashion_mnist.py:(short|compared)|runs/h200|--import_from"
)


def test_the_pages_have_commands():
  assert {QUICKSTART, EXPORT} <= set(COMMANDS)
  assert len(COMMANDS) >= 6


def arguments_of(command):
  """The arguments that do not depend on the reader's machine."""
  return tuple(
    part
    for part in shlex.split(command)
    if not re.search(r"\b(DIR|FILE|IMAGES|NAME|VALUE)\b", part)
    and not part.startswith(("--workdir", "--step"))
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "given",
  sorted({arguments_of(c) for c in COMMANDS if not ELSEWHERE.search(c)}),
  ids=" ".join,
)
def test_every_command_runs(given, tmp_path, digits_dir):
  """In miniature: two steps of a tiny network on the digits that ship."""

  def run(*args):
    done = command_line.run(
      *args,
      *command_line.TINY[1:],
      "--config.data.dataset=mnist_digits",
      "--config.train.steps=2",
      "--config.evaluation.protocols=knn",
      "--config.evaluation.baselines=False",
      f"--workdir={tmp_path}",
      data_dir=digits_dir,
    )
    assert done.returncode == 0, done.stderr

  modes = {"--mode=evaluate", "--mode=report", "--mode=embed", "--mode=export"}
  if modes & set(given):
    run(given[0])  # Leaves what they read.
  run(*given)


@pytest.mark.slow
def test_the_quickstart_learns_and_its_encoder_can_be_used(
  tmp_path, digits_dir, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  workdir = tmp_path / "runs" / "quickstart"
  done = command_line.run(
    QUICKSTART, f"--workdir={workdir}", data_dir=digits_dir, as_users=True
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((workdir / "results.json").read_text())
  assert results.pop("health")["verdict"] == "healthy"
  value = {name: result["value"] for name, result in results.items()}
  assert value["linear/top1"] >= 0.955
  assert value["linear/top1"] >= value["baseline/pixels_linear_top1"] + 0.03
  assert value["linear/top1"] >= value["baseline/random_linear_top1"] + 0.03
  assert value["knn/top1"] >= value["baseline/pixels_knn_top1"] + 0.015
  assert value["knn/top1"] >= value["baseline/random_knn_top1"] + 0.03

  done = command_line.run(
    *EXPORT.split(), f"--workdir={workdir}", data_dir=digits_dir
  )
  assert done.returncode == 0, done.stderr
  scope = {"images": np.full((3, 20, 20, 3), 0.5, np.float32)}
  run_code("docs/encoder.md", scope)
  assert scope["vectors"].shape == (3, 1152)
  assert np.all(np.isfinite(scope["vectors"]))
  sizes = [np.abs(x).max() for x in jax.tree.leaves(scope["gradient"])]
  assert np.all(np.isfinite(sizes))
  assert max(sizes) > 0


def code_blocks(page):
  """The indented blocks of a page that use the package from Python."""
  blocks = pages.code((ROOT / page).read_text())
  return [block for block in blocks if "import byol_jax\n" in block]


def run_code(page, scope):
  """Runs the code of a page, block by block, in the working folder."""
  blocks = code_blocks(page)
  assert blocks
  for block in blocks:
    exec(block, scope)


@pytest.fixture
def trained(tmp_path, monkeypatch):
  """A working folder with a small trained encoder in runs/folder."""
  monkeypatch.chdir(tmp_path)
  with zipfile.ZipFile(ROOT / "tests/workdirs/before_packages.zip") as archive:
    archive.extract("encoder/encoder.safetensors", "runs/folder")


@pytest.mark.slow
def test_the_recipes_for_an_encoder_work(trained):
  """On pictures of two colours."""
  labels = np.arange(40) % 2
  images = np.random.RandomState(0).randint(0, 90, (40, 16, 16, 3))
  images[labels == 1, ..., 0] += 150
  images = images.astype(np.uint8)
  files = [f"photos/{i}.jpg" for i in range(6)]
  pathlib.Path("photos").mkdir()
  for file, image in zip(
    [*files, "query.jpg"], images[[*range(6), 3]], strict=True
  ):
    PIL.Image.fromarray(image).resize((40, 30)).save(file)
  scope = {
    "images": images[:20],
    "labels": labels[:20],
    "test_images": images[20:],
    "test_labels": labels[20:],
  }
  recipes = code_blocks("docs/use_the_encoder.md")[:-1]
  with jax.numpy_rank_promotion("warn"):  # As users have it.
    for recipe in recipes:
      exec(recipe, scope)

  found = [str(scope["paths"][i]) for i in scope["order"]]
  assert found[0] == files[3]
  assert set(found[:3]) == {files[1], files[3], files[5]}
  assert scope["accuracy"] == 1
  assert scope["values"][-1] < 0.5 * scope["values"][0]
  before = scope["encoder"].encode(images[20:])
  assert np.abs(scope["new_vectors"] - before).max() > 1e-3


def test_the_readme_encodes_an_image_of_any_size(trained):
  scope = {"image": np.full((30, 40, 3), 0.5, np.float32)}
  run_code("README.md", scope)
  assert scope["vector"].ndim == 1
  assert np.all(np.isfinite(scope["vector"]))


def test_the_example_of_an_encoder_builds_a_network(monkeypatch):
  monkeypatch.setattr(encoders, "ENCODERS", dict(encoders.ENCODERS))
  page = (ROOT / "docs" / "variants.md").read_text()
  section = page.split("### An encoder of your own")[1].split("\n##")[0]
  scope = {}
  (block,) = pages.code(section)
  exec(block, scope)
  cfg = convert.typed(scope["get_config"]())
  cfg.data.mean = cfg.data.std = (0.5,)
  cfg.data.channels = 1
  network = build.build_network(cfg, num_classes=10)
  image = jax.ShapeDtypeStruct((4, 28, 28, 1), np.float32)
  params, _ = jax.eval_shape(
    lambda key, x: network.init(key, x, is_training=True),
    jax.random.key(0),
    image,
  )
  sizes = {name: x.shape for name, x in params["small_cnn/conv_2"].items()}
  assert sizes == {"w": (3, 3, 64, 128)}


def test_the_recipe_for_pytorch_works(trained):
  pytest.importorskip("torch", reason="PyTorch is not installed")
  scope = {}
  exec(code_blocks("docs/use_the_encoder.md")[-1], scope)
  expected = scope["encoder"].encode(scope["channels_last"].numpy())
  for name in ("by_numpy", "by_dlpack"):
    np.testing.assert_allclose(scope[name].numpy(), expected, rtol=1e-5)


def is_module(dotted):
  """Whether `data.registry.DATASETS` and the like name code, not a key."""
  package, module, *_ = dotted.split(".")
  return (ROOT / "byol_jax" / package / f"{module}.py").exists()


def test_every_key_in_the_pages_exists():
  known = convert.typed(config.default_config())
  keys = set(re.findall(r"--config\.((?:\w+\.)+\w+)", TEXT))
  keys |= {
    key
    for key in re.findall(r"`((?:\w+\.)+\w+)(?:=[^`]*)?`", TEXT)
    if hasattr(known, key.split(".")[0])
    and not is_module(key)
    and not key.endswith(".safetensors")  # A file.
  }
  assert len(keys) > 20
  for key in keys:
    convert.value_at(known, key)


@pytest.mark.parametrize(
  "page", [*PAGES, "CONTRIBUTING.md", "benchmarks/README.md", "CHANGELOG.md"]
)
def test_links_and_pictures_are_there(page):
  path = ROOT / page
  for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
    if not target.startswith("http"):
      assert pathlib.Path(path.parent / target).exists(), target
