"""The layering that docs/architecture.md draws, read off the imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

LAYERS = {
  "byol_jax.errors": 0,
  "byol_jax.runtime.cpu": 0,
  "byol_jax.models.convolution": 1,
  "byol_jax.config.defaults": 1,
  "byol_jax.runtime.files": 1,
  "byol_jax.data.registry": 1,
  "byol_jax.data.mnist_digits": 1,
  "byol_jax.data.tensorflow_setup": 1,
  "byol_jax.data.thread_map": 1,
  "byol_jax.data.statistics": 2,
  "byol_jax.data.tfds_store": 2,
  "byol_jax.data.folder_scan": 1,
  "byol_jax.data.folder_inspect": 3,
  "byol_jax.data.folder_splits": 4,
  "byol_jax.data.folder_builder": 4,
  "byol_jax.data.image_folder": 5,
  "byol_jax.data.host_ops": 1,
  "byol_jax.learning.losses": 1,
  "byol_jax.learning.optimizers": 1,
  "byol_jax.runtime.devices": 1,
  "byol_jax.runtime.processes": 1,
  "byol_jax.runtime.checkpoints": 1,
  "byol_jax.sweeps": 1,
  "byol_jax.augment.device_ops": 2,
  "byol_jax.models.layers": 2,
  "byol_jax.runtime.metrics": 2,
  "byol_jax.training.plan": 2,
  "byol_jax.runtime.shutdown": 2,
  "byol_jax.models.resnet": 3,
  "byol_jax.data.loading": 6,
  "byol_jax.data.input_pipeline": 7,
  "byol_jax.models.networks": 4,
  "byol_jax.learning.learner": 5,
  "byol_jax.training.runs": 8,
  # Inside a package, modules may import its lower ones.
  "byol_jax.evaluation.features": 9,
  "byol_jax.evaluation.neighbours": 9,
  "byol_jax.evaluation.scores": 9,
  "byol_jax.evaluation.geometry": 10,
  "byol_jax.evaluation.knn": 10,
  "byol_jax.evaluation.linear": 10,
  "byol_jax.evaluation.retrieval": 10,
  "byol_jax.evaluation.subject": 10,
  "byol_jax.evaluation.embed": 11,
  "byol_jax.evaluation.finetune": 11,
  "byol_jax.evaluation.logistic": 11,
  "byol_jax.evaluation.protocols": 12,
  "byol_jax.evaluation.runner": 13,
  "byol_jax.reporting.report": 13,
  "byol_jax.reporting.summary": 14,
  "byol_jax.interop.encoder_file": 14,
  "byol_jax.main": 15,
}
TENSORFLOW = {
  "folder_builder",
  "folder_inspect",
  "image_folder",
  "loading",
  "mnist_digits",
  "tensorflow_setup",
  "tfds_store",
  "host_ops",
  "input_pipeline",
  "metrics",
}


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(part for part in parts if part != "__init__")


MODULES = {
  module_name(path): path for path in sorted(ROOT.glob("byol_jax/**/*.py"))
}


def imports_of(path):
  """Dotted names of all that a file imports, also inside functions."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        inner = f"{node.module}.{alias.name}"
        names.add(inner if inner in MODULES else node.module)
  return names


def names_in(path):
  """All names a file uses or imports, without what stands before a dot."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Name):
      names.add(node.id)
    elif isinstance(node, ast.Attribute):
      names.add(node.attr)
    elif isinstance(node, ast.alias):
      names.add(node.name)
  return names


def test_every_module_has_a_layer():
  packages = {m for m, path in MODULES.items() if path.stem == "__init__"}
  assert set(MODULES) - packages == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_a_module_imports_only_from_lower_layers(module):
  for name in imports_of(MODULES[module]):
    if name in LAYERS:
      assert LAYERS[name] < LAYERS[module], f"{module} imports {name}"


def test_tensorflow_feeds_images_and_writes_events_only():
  users = {
    module.split(".")[-1]
    for module, path in MODULES.items()
    if any(n.split(".")[0].startswith("tensorflow") for n in imports_of(path))
  }
  assert users == TENSORFLOW


def test_only_main_reads_flags():
  users = {
    module
    for module, path in MODULES.items()
    if "flags" in {name.split(".")[-1] for name in names_in(path)}
  }
  assert users == {"byol_jax.main"}


def test_only_parallel_uses_pmap():
  users = {m for m, path in MODULES.items() if "pmap" in names_in(path)}
  assert users == {"byol_jax.runtime.devices"}


@pytest.mark.parametrize(
  "path", sorted(ROOT.glob("experiments/*.py")), ids=lambda path: path.stem
)
def test_experiments_edit_the_default_configuration(path):
  ours = {n for n in imports_of(path) if n.startswith("byol_jax")}
  assert ours <= {"byol_jax.config"}
  opening = ast.get_docstring(ast.parse(path.read_text()))
  assert f"--config=experiments/{path.name}" in opening
  assert "xpected" in opening
