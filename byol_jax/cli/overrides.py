"""What is wrong with a setting on the command line, --config.KEY=VALUE."""

import dataclasses
import difflib
import types
import typing
from typing import Any

from absl import flags

from byol_jax.config import convert, schema

# How a value of each type is read and described. Tuples are checked later.
_TYPES: dict[type, tuple[flags.ArgumentParser, str]] = {
  int: (flags.IntegerParser(), "a whole number"),
  float: (flags.FloatParser(), "a number"),
  bool: (flags.BooleanParser(), "True or False"),
}


def like(key: str) -> list[str]:
  """Returns the dotted keys of the configuration that end as a key does."""
  last = key.rpartition(".")[-1]
  known = convert.key_types(schema.Config)
  return [x for x in known if x == key] or [
    x for x in known if x.rpartition(".")[-1] == last
  ]


def mistake(key: str, value: str | None) -> str | None:
  """Returns one line on a setting that cannot be, None if it can.

  Args:
    key: dotted.
    value: None if it is not given together with the key.
  """
  given = f"--config.{key}" + ("" if value is None else f"={value}")
  kind: Any = schema.Config
  place = ""
  for name in key.split("."):
    if not dataclasses.is_dataclass(kind):
      return f"{given} is unknown; {place} is a value, not a section."
    kinds = typing.get_type_hints(kind)
    if name not in kinds:
      close = difflib.get_close_matches(name, kinds, n=1)
      before, _, after = key.partition(name)
      known = convert.key_types(schema.Config)
      meant = [x for n in close if (x := f"{before}{n}{after}") in known]
      meant = meant or like(key)
      hint = f"did you mean --config.{meant[0]}? " if meant else ""
      return (
        f"{given} is unknown; {hint}{place or 'the configuration'} has:"
        f" {', '.join(kinds)}."
      )
    kind, place = kinds[name], f"{place}.{name}" if place else name
  if dataclasses.is_dataclass(kind):
    names = (field.name for field in dataclasses.fields(kind))
    return f"{given} is a section; set one of its keys: {', '.join(names)}."
  if isinstance(kind, types.UnionType):  # `int | None`
    kind = typing.get_args(kind)[0]
  if value is not None and kind in _TYPES:
    parser, described = _TYPES[kind]
    try:
      parser.parse(value)
    except (ValueError, TypeError):
      return f"{given} has the wrong type; {place} must be {described}."
  return None
