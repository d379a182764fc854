"""What an encoder file tells about its encoder that is not needed to use it."""

import json
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import byol_jax
from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.training import saved_settings

# Only the last part of these paths is told: a file is given to others.
_PATHS = ("data.root", "data.labels", "model.encoder.init_from")


class About(NamedTuple):
  """What a file tells; nothing, if an earlier version wrote it.

  Attributes:
    class_names: the classes of the images that the encoder was trained on, by label.
    training: the settings of its run that its parameters depend on, by key, such as
      `data.dataset`, and `version`, that of this package. Of paths, only the last
      part.
  """

  class_names: tuple[str, ...] = ()
  training: Mapping[str, Any] = types.MappingProxyType({})


def to_text(config: schema.Config, class_names: Sequence[str]) -> str:
  """Returns what the file of an encoder tells, as JSON.

  Args:
    config: the resolved configuration of its run.
    class_names: of the data set of its run, by label.
  """
  training = {
    key: os.path.basename(value.rstrip("/")) if key in _PATHS else value
    for key, value in convert.flatten(convert.to_json(config)).items()
    if not key.startswith(saved_settings.RESUME_SAFE_KEYS)
  } | {"version": byol_jax.__version__}
  return json.dumps({"class_names": list(class_names), "training": training})


def parsed(contents: Mapping[str, Any]) -> About:
  """Returns what a file tells, from the JSON that `to_text` made.

  Raises:
    UserError: if it is something else.
  """
  names, training = (contents.get(x) for x in ("class_names", "training"))
  if not (
    isinstance(names, list)
    and all(isinstance(name, str) for name in names)
    and isinstance(training, dict)
  ):
    raise errors.UserError(
      "its class_names and training are of the wrong type."
    )
  return About(tuple(names), training)
