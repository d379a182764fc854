"""The layers that docs/architecture.md draws, and what each of them may load."""

import ast
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# A package imports from itself and from those before it.
LAYERS = (
  "errors",
  "sweeps",
  "runtime",
  "augment",
  "config",
  "models",
  "learning",
  "data",
  "training",
  "evaluation",
  "interop",
  "program",
  "reporting",
  "cli",
  "main",
)
# Libraries that take seconds to import, and the only places that name them.
HEAVY = {
  "tensorflow": {"data"},
  "tensorflow_datasets": {"data"},
  "matplotlib": {"reporting"},
  "orbax": {"runtime.checkpoints"},
}
# Files and functions longer than this are split (CONTRIBUTING.md).
MOST_LINES = 320
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 8


def module_name(path):
  parts = path.relative_to(ROOT / "byol_jax").with_suffix("").parts
  return ".".join(part for part in parts if part != "__init__")


MODULES = {
  module_name(path): path for path in sorted(ROOT.glob("byol_jax/**/*.py"))
}
del MODULES[""]


def layer_of(module):
  return LAYERS.index(module.split(".")[0])


def imports_of(path):
  """Dotted names of all that a file imports, also inside functions."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def names_in(path):
  """All names that a file uses or imports, without what stands before a dot."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Name):
      names.add(node.id)
    elif isinstance(node, ast.Attribute):
      names.add(node.attr)
    elif isinstance(node, ast.alias):
      names.add(node.name)
  return names


def python(code, *args, **environment):
  """Runs code in a new interpreter and returns the JSON that it prints."""
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code), *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=os.environ | environment,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_every_module_is_in_a_layer():
  assert {module.split(".")[0] for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_names_only_its_own_and_lower_layers(module):
  for name in imports_of(MODULES[module]):
    if name.startswith("byol_jax."):
      imported = name.removeprefix("byol_jax.")
      assert layer_of(imported) <= layer_of(module), f"{module}: {name}"


def test_packages_hold_no_logic():
  for module, path in MODULES.items():
    if path.stem == "__init__":
      for node in ast.parse(path.read_text()).body:
        assert isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign), module


def test_the_package_only_finds_what_it_offers():
  """JAX takes seconds to import, so what it offers is imported on first use."""
  (function,) = (
    node
    for node in ast.parse((ROOT / "byol_jax" / "__init__.py").read_text()).body
    if not isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign)
  )
  assert function.name == "__getattr__"


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_named_in_its_place_only(library):
  for module, path in MODULES.items():
    if library in {name.split(".")[0] for name in imports_of(path)}:
      assert any(module.startswith(place) for place in HEAVY[library]), module


def test_importing_a_layer_loads_no_higher_one_and_nothing_heavy():
  """Imports are followed to their end, layer by layer, in one interpreter."""
  stages = [
    [m for m in MODULES if m.split(".")[0] == layer] for layer in LAYERS[:-1]
  ]
  loaded = python(
    """
    import importlib, json, sys
    loaded = []
    for stage in json.loads(sys.argv[1]):
      for module in stage:
        importlib.import_module(f"byol_jax.{module}")
      loaded.append(sorted(sys.modules))
    print(json.dumps(loaded))
    """,
    json.dumps(
      # By itself, as it is the only module of its package with a library.
      [[m for m in stage if m != "runtime.checkpoints"] for stage in stages]
    ),
  )
  for layer, modules in zip(LAYERS, loaded, strict=False):
    for module in modules:
      if module.startswith("byol_jax."):
        inner = module.removeprefix("byol_jax.")
        assert layer_of(inner) <= LAYERS.index(layer), f"{layer}: {module}"
    if LAYERS.index(layer) < LAYERS.index("data"):
      assert not set(HEAVY) & set(modules), layer


def test_the_core_is_used_without_a_heavy_library(tmp_path):
  """A training step with device augmentation, and an exported encoder.

  They need no home folder, either.
  """
  archive = ROOT / "tests" / "workdirs" / "before_packages.zip"
  with zipfile.ZipFile(archive) as file:
    encoder = file.extract("encoder/encoder.safetensors", tmp_path)
  loaded = python(
    """
    import json, sys
    import jax, numpy as np
    import byol_jax
    from byol_jax import config
    from byol_jax.augment import device_ops, spec
    from byol_jax.training import build, plan

    settings = config.small_grey_config()
    settings.model.encoder.name = "TinyResNet"
    settings.data.image_size = 16
    settings.data.mean = settings.data.std = (0.5, 0.5, 0.5)
    settings.augment.placement = "device"
    settings.train.steps = 2
    learner = build.build_learner(settings, plan.make_plan(settings, 256), 1)
    crops = np.zeros((2, 16, 16, 3), np.uint8)
    enabled = spec.enabled_ops(settings.augment.view1, settings.augment.view2)
    count = len(enabled.jitter)
    no, zero = np.zeros(2, bool), np.zeros(2, np.float32)
    params = spec.AugmentParams(
      flip=no, jitter=~no, order=np.tile(np.arange(count, dtype=np.int32), (2, 1)),
      amounts=np.ones((2, count), np.float32), grayscale=no, blur=no,
      sigma=zero + 1, solarize=no,
    )
    batch = {
      "view1": crops, "view2": crops, "params1": params, "params2": params,
      "label": np.zeros(2, np.int32),
    }
    state = learner.init(jax.random.key(0), batch)
    state, metrics = jax.jit(learner.update)(state, batch)
    assert np.isfinite(metrics["loss"])
    encode = byol_jax.load_encoder(sys.argv[1]).encode
    assert encode(np.zeros((2, 16, 16, 3), np.float32)).shape == (2, 16)
    print(json.dumps(sorted(sys.modules)))
    """,
    str(encoder),
    HOME="/dev/null",
  )
  assert not set(HEAVY) & set(loaded)


def test_only_one_module_reads_flags():
  users = {
    module
    for module, path in MODULES.items()
    if {"DEFINE_string", "FLAGS"} & names_in(path)
  }
  assert users == {"cli.flags"}


def test_only_one_module_uses_pmap():
  users = {m for m, path in MODULES.items() if "pmap" in names_in(path)}
  assert users == {"runtime.devices"}


@pytest.mark.parametrize("module", MODULES)
def test_files_functions_and_signatures_are_short(module):
  text = MODULES[module].read_text()
  assert text.count("\n") <= MOST_LINES
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      lines = node.end_lineno - node.lineno + 1
      assert lines <= MOST_FUNCTION_LINES, node.name
      arguments = node.args.args + node.args.kwonlyargs
      count = len([a for a in arguments if a.arg not in ("self", "cls")])
      assert count <= MOST_PARAMETERS, node.name


def test_no_test_module_imports_another():
  for path in ROOT.glob("tests/*.py"):
    for name in imports_of(path):
      parts = name.split(".")
      assert parts[0] != "tests" or not parts[1].endswith("_test"), path


@pytest.mark.parametrize(
  "path", sorted(ROOT.glob("experiments/*.py")), ids=lambda path: path.stem
)
def test_experiments_edit_the_default_configuration(path):
  ours = {n for n in imports_of(path) if n.startswith("byol_jax")}
  assert all(name.startswith("byol_jax.config.") for name in ours)
  opening = ast.get_docstring(ast.parse(path.read_text()))
  _, expectation = opening.split(f"--config=experiments/{path.name}", 1)
  assert len(expectation.split()) > 10
