"""Two CPU devices, strict JAX, and prepared digits for all tests."""

import os
import pathlib
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Spares the import of Keras.
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # GPUs round differently.

import jax
import pytest

from byol_jax.runtime import cpu
from tests import command_line

cpu.choose_fast_convolutions()
# Tests spend most of their time on compilation. Less optimisation and a cache
# on disk, which other tests and later runs share, take a third off.
cpu.set_xla_flag(*command_line.COMPILE_FASTER)
jax.config.update(
  "jax_compilation_cache_dir",
  str(command_line.ROOT / ".pytest_cache" / "compiled"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)  # Any.
jax.config.update("jax_num_cpu_devices", 2)
# A shape that fits only by an implicit broadcast is a mistake.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def fresh_memory():
  """Forgets the compiled programs of a file, which would add up to gigabytes."""
  yield
  jax.clear_caches()


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
  """A data_dir of this session, in which the digits are prepared once."""
  return str(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def sharded_dir(tmp_path_factory) -> pathlib.Path:
  """A data_dir with the data set of `input_cases`, which no test changes."""
  from tests import input_cases

  folder = tmp_path_factory.mktemp("sharded")
  input_cases.store(folder)
  return folder


@pytest.fixture(scope="session")
def source(sharded_dir):
  """The data set of `input_cases`: 97 examples in five files."""
  from byol_jax.data import loading

  return loading.load("cifar10", str(sharded_dir))


@pytest.fixture
def copied(sharded_dir, tmp_path):
  """A copy of that data set that a test may damage, and its files."""
  from byol_jax.data import loading

  shutil.copytree(sharded_dir, tmp_path / "copied")
  source = loading.load("cifar10", str(tmp_path / "copied"))
  return source, sorted(tmp_path.glob("copied/cifar10/*/*.tfrecord*"))


@pytest.fixture
def compiled():
  """The compilations since the test began, one entry each."""
  events = []

  def listen(event, *_, **__):
    if "compile" in event:
      events.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield events
  jax.monitoring.unregister_event_duration_listener(listen)


# The files that take minutes, the longest first: each worker takes a file
# at a time, and the last file should be a short one.
_LONG_FILES = (
  "multiprocess_test.py",
  "docs_test.py",
  "slurm_test.py",
  "loop_test.py",
  "experiments_test.py",
  "device_batches_test.py",
  "tutorial_test.py",
  "learner_test.py",
  "main_test.py",
  "networks_test.py",
  "exports_test.py",
  "encoder_file_test.py",
  "checkpoints_test.py",
  "buckets_test.py",
  "variants_test.py",
  "chaos_test.py",
  "protocols_test.py",
  "folder_test.py",
  "accelerator_test.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  folder = command_line.ROOT / "tests"
  if missing := [name for name in _LONG_FILES if not (folder / name).exists()]:
    raise pytest.UsageError(
      f"tests/conftest.py orders {', '.join(missing)}, which are gone; name the"
      " files that hold their tests now."
    )
  order = {name: index for index, name in enumerate(_LONG_FILES)}
  items.sort(key=lambda item: order.get(item.path.name, len(order)))
