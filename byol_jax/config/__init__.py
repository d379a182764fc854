"""The configuration: every key, its default and its rules."""

from byol_jax.config.presets import (
  cifar_config,
  default_config,
  preset,
  small_grey_config,
)
from byol_jax.config.schema import Config
from byol_jax.config.validation import validate

__all__ = [
  "Config",
  "cifar_config",
  "default_config",
  "preset",
  "small_grey_config",
  "validate",
]
