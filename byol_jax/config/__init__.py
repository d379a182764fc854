"""The configuration: every key, its default and its rules."""

from byol_jax.config.defaults import (
  Config,
  default_config,
  preset,
  small_grey_config,
  validate,
  value_at,
)

__all__ = [
  "Config",
  "default_config",
  "preset",
  "small_grey_config",
  "validate",
  "value_at",
]
