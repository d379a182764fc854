"""A configuration as plain dataclasses, and its forms for files and flags."""

import copy
import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from byol_jax.config import schema

T = TypeVar("T")


def typed(config: schema.Config) -> schema.Config:
  """Returns a configuration as plain dataclasses.

  Args:
    config: a `ConfigDict` that flags and experiments have edited, or a
      configuration of dataclasses, which is copied.
  """
  return _filled(schema.Config, config)


def _filled(cls: type[T], section: Any) -> T:
  """Returns a dataclass with the values that a section has for its fields."""
  types = typing.get_type_hints(cls)
  values = {}
  for field in dataclasses.fields(cls):  # type: ignore[arg-type]
    value = getattr(section, field.name)
    if dataclasses.is_dataclass(types[field.name]):
      value = _filled(types[field.name], value)
    values[field.name] = copy.copy(value)
  return cls(**values)


def to_json(config: schema.Config) -> dict[str, Any]:
  """Returns a configuration as `config.json` holds it, with lists for tuples."""
  return json.loads(json.dumps(dataclasses.asdict(typed(config))))


def from_json(contents: Any, default: T) -> T:
  """Returns a section with the values that `config.json` holds for its keys.

  Args:
    contents: may lack keys, which then have their default, and hold others. The
      values are not checked.
    default: the section's defaults, such as `schema.Config()`.

  Raises:
    TypeError: where a section should be, there is something else.
  """
  if not isinstance(contents, Mapping):
    raise TypeError(f"{contents!r} is no section")
  values: dict[str, Any] = {}
  for field in dataclasses.fields(default):  # type: ignore[arg-type]
    if field.name in contents:
      value, old = contents[field.name], getattr(default, field.name)
      if dataclasses.is_dataclass(old):
        value = from_json(value, old)
      values[field.name] = tuple(value) if isinstance(value, list) else value
  return dataclasses.replace(default, **values)  # type: ignore[type-var]


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns nested dictionaries as one with dotted keys."""
  keys: dict[str, Any] = {}
  for key, value in nested.items():
    if isinstance(value, Mapping):
      keys |= flatten(value, f"{prefix}{key}.")
    else:
      keys[prefix + key] = value
  return keys


def key_types(section: type, prefix: str = "") -> dict[str, Any]:
  """Returns the type of each dotted key of a section of the configuration."""
  keys: dict[str, Any] = {}
  for name, kind in typing.get_type_hints(section).items():
    if dataclasses.is_dataclass(kind):
      keys |= key_types(typing.cast(type, kind), f"{prefix}{name}.")
    else:
      keys[prefix + name] = kind
  return keys


def value_at(config: schema.Config, key: str) -> Any:
  """Returns the value at a dotted key."""
  value: Any = config
  for name in key.split("."):
    value = getattr(value, name)
  return value


def names(value: Sequence[str]) -> list[str]:
  """Returns the names in a tuple, each of which may hold several, with commas."""
  joined = ",".join(value)  # --config.KEY=a,b gives ("a,b",).
  return [name.strip() for name in joined.split(",") if name.strip()]


def updated(config: schema.Config, values: Mapping[str, Any]) -> schema.Config:
  """Returns a copy with new values at dotted keys; lists become tuples."""
  changed = typed(config)
  for key, value in values.items():
    *path, name = key.split(".")
    section = value_at(changed, ".".join(path)) if path else changed
    setattr(section, name, tuple(value) if isinstance(value, list) else value)
  return changed
