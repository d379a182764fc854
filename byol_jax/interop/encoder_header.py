"""The metadata of an encoder file: settings, step, checksums, and what it tells."""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.interop import encoder_about, encoder_settings

_FORMAT = "byol_jax.encoder.1"


class Header(NamedTuple):
  """What a file says about its arrays.

  Attributes:
    settings: see `encoder_settings`.
    step: updates that the encoder was trained for.
    checksums: of arrays by name; None in a file of an earlier version.
    about: see `encoder_about`.
  """

  settings: dict[str, Any]
  step: int
  checksums: dict[str, Any] | None
  about: encoder_about.About


def to_metadata(
  config: schema.Config,
  step: int,
  arrays: Mapping[str, Any],
  class_names: Sequence[str],
) -> dict[str, str]:
  """Returns the metadata of a file.

  Args:
    config: the resolved configuration of the run.
    step: updates that the encoder was trained for.
    arrays: those of the file, by name.
    class_names: of the data set of the run, by label.
  """
  described = {
    "step": str(step),
    "config": json.dumps(encoder_settings.of(config)),
  }
  checksums = {name: zlib.crc32(x) for name, x in arrays.items()} | {
    name: zlib.crc32(text.encode()) for name, text in described.items()
  }
  about = encoder_about.to_text(config, class_names)
  return {
    "format": _FORMAT,
    "checksums": json.dumps(checksums),
    **described,
    "about": about,
    # Earlier versions know what `checksums` may hold, and ignore other metadata.
    "about_checksum": str(zlib.crc32(about.encode())),
  }


def parsed(metadata: Mapping[str, str]) -> Header:
  """Returns what the metadata of a file say.

  Raises:
    UserError: the reason, if `to_metadata` did not make them.
  """
  if metadata.get("format") != _FORMAT:
    raise errors.UserError(
      f"it is of format {metadata.get('format')}, not {_FORMAT}"
    )
  checksums = None
  if "checksums" in metadata:
    checksums = _dictionary("checksums", metadata)
    for key in ("step", "config"):
      found = zlib.crc32(metadata.get(key, "").encode())
      if checksums.pop(key, None) != found:
        raise errors.UserError(f"{key} differs from its checksum")
  settings = encoder_settings.completed(_dictionary("config", metadata))
  step = metadata.get("step", "")
  if not (step.isascii() and step.isdecimal() and len(step) <= 10) or (
    int(step) > np.iinfo(np.int32).max
  ):
    raise errors.UserError(f"step={step} must be a number from 0 to 2**31 - 1")
  return Header(settings, int(step), checksums, _about(metadata))


def _about(metadata: Mapping[str, str]) -> encoder_about.About:
  """Returns what a file tells; earlier versions wrote no such text."""
  text, checksum = (metadata.get(x) for x in ("about", "about_checksum"))
  if text is None and checksum is None:
    return encoder_about.About()
  if checksum != str(zlib.crc32((text or "").encode())):
    raise errors.UserError("about differs from its checksum")
  return encoder_about.parsed(_dictionary("about", metadata))


def _dictionary(key: str, metadata: Mapping[str, str]) -> dict[str, Any]:
  """Returns the dictionary that one of the metadata holds as JSON."""
  try:
    value = json.loads(metadata.get(key, ""))
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f"its {key} is no JSON: {error}") from error
  if not isinstance(value, dict):
    raise errors.UserError(f"its {key} is no dictionary")
  return value
