"""Two CPU devices, strict JAX, and golden arrays for all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # GPUs round differently.

import jax
import pytest

from byol_jax import host
from tests import command_line

host.choose_fast_convolutions()
# Tests are mostly compilation, which this takes a quarter off. Programs that
# tests start get what users get, see command_line.
os.environ["XLA_FLAGS"] += f" {command_line.COMPILE_FASTER}"
jax.config.update("jax_num_cpu_devices", 2)
# A shape that only fits by an implicit broadcast is a mistake.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
  """A data_dir of the tests' own, in which the digits are prepared once."""
  return str(tmp_path_factory.mktemp("digits"))
