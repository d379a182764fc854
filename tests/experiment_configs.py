"""The configurations of the experiments that the project ships."""

import importlib

from byol_jax.config import Config


def experiment_config(name: str, *preset: str) -> Config:
  """Returns the configuration of experiments/NAME.py[:PRESET]."""
  module = importlib.import_module(f"experiments.{name}")
  return module.get_config(*preset)
