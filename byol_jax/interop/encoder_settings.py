"""The settings without which an encoder cannot be used as it was trained."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from byol_jax import errors
from byol_jax.config import convert, schema, validation
from byol_jax.training import build

# Of the encoder's own section, only what decides initial values is not among them.
_KEYS = (
  "data.image_size",
  "data.image_width",
  "data.channels",
  "data.eval_crop",
  "data.mean",
  "data.std",
  *(
    f"model.encoder.{field.name}"
    for field in dataclasses.fields(schema.EncoderConfig)
    if field.name not in ("init_from", "zero_init_last_scale")
  ),
  "model.batch_norm.eps",
  "train.precision",
)


def of(config: schema.Config) -> dict[str, Any]:
  """Returns the settings of a resolved configuration by their keys."""
  return {key: convert.value_at(config, key) for key in _KEYS}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns settings that were read from JSON, after checks of each.

  Settings that an earlier version did not have get their defaults.

  Raises:
    UserError: for the first key that is unknown and the first value that cannot
      be right, before anything is built from them.
  """
  defaults = of(schema.Config())
  for key, value in settings.items():
    if key not in defaults:
      raise errors.unknown_name("the setting", key, defaults)
    if not _is_like(value, defaults[key]):
      raise errors.UserError(f"{key} is of the wrong type: {value!r}.")
  config = convert.updated(schema.Config(), settings)
  validation.validate(config)
  for key in ("data.image_size", "data.mean", "data.std"):
    if not convert.value_at(config, key):
      raise errors.UserError(f"{key} is not given.")
  build.build_encoder(config)  # Checks the names.
  return of(config)


def _is_like(value: Any, default: Any) -> bool:
  """Returns whether a value of JSON has the type of a default value."""
  if isinstance(default, tuple):
    return isinstance(value, list) and all(_is_like(x, 0.0) for x in value)
  if isinstance(default, float):
    # JSON may also give NaN, infinity, and integers that no float can hold.
    return type(value) in (int, float) and abs(value) < 1e30
  return type(value) is type(default)
