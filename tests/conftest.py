"""Two CPU devices, strict JAX, and golden arrays for all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Neither is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # GPUs round differently.

import jax
import pytest

from byol_jax.runtime import cpu
from tests import command_line

cpu.choose_fast_convolutions()
# Tests are mostly compilation, which this takes a third off: less is optimised, and
# what one test compiled, others and later runs take from disk. Programs that tests
# start get what users get, see command_line.
os.environ["XLA_FLAGS"] += f" {command_line.COMPILE_FASTER}"
jax.config.update(
  "jax_compilation_cache_dir",
  str(command_line.ROOT / ".pytest_cache" / "compiled"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)  # Any.
jax.config.update("jax_num_cpu_devices", 2)
# A shape that only fits by an implicit broadcast is a mistake.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
  """A data_dir of the tests' own, in which the digits are prepared once."""
  return str(tmp_path_factory.mktemp("digits"))


# Those that take minutes, the longest first: two processes take a file at a time,
# and one of them should not end with a long one alone.
_LONG_FILES = (
  "train_test.py",
  "learner_test.py",
  "docs_test.py",
  "slurm_test.py",
  "multiprocess_test.py",
  "protocols_test.py",
  "experiments_test.py",
  "networks_test.py",
  "main_test.py",
  "folder_test.py",
  "evaluation_test.py",
  "retrieval_test.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  def place(item: pytest.Item) -> int:
    name = item.path.name
    long = name in _LONG_FILES
    return _LONG_FILES.index(name) if long else len(_LONG_FILES)

  items.sort(key=place)
