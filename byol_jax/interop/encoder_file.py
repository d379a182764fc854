"""A trained encoder in one file, which is all that is needed to use it.

The file is a safetensors file, which any framework reads without running code
from it. Its arrays are `params/MODULE/NAME` and `state/MODULE/NAME`, by Haiku's
names. Its metadata name the network and how images are prepared for it, and hold
a CRC-32 of each array and of themselves; earlier versions wrote none.
"""

import contextlib
import pathlib
import stat
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from byol_jax import errors
from byol_jax.config import convert, presets, schema
from byol_jax.interop import architecture, encoder_arrays, encoder_header
from byol_jax.interop.encoder import Encoder, Variables, make_encoder
from byol_jax.interop.encoder_header import Header
from byol_jax.interop.images import Form
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files
from byol_jax.training import build

# Our choice: ten times the header of a ResNet-200 (450 kB). Safetensors itself
# takes 100 MB, for which it needs 10 s and 1.5 GB.
_MOST_HEADER_BYTES = 5_000_000
_TYPES = {"F32": "float32", "I32": "int32"}  # Those of an encoder's arrays.


def write(
  path: pathlib.Path,
  config: schema.Config,
  state: TrainState,
  class_names: Sequence[str] = (),
) -> None:
  """Writes the online encoder of a state to a file.

  Args:
    path: the file, which is replaced; its folder is created.
    config: the resolved configuration of the run.
    state: its online encoder is written.
    class_names: of the data set of the run, by label.

  Raises:
    UserError: if the encoder holds NaN or infinity, or the file cannot be written.
  """
  arrays = encoder_arrays.of_state(state)
  metadata = encoder_header.to_metadata(
    config, int(state.step), arrays, class_names
  )
  with files.atomic_write(path, "free space there and export again") as file:
    file.write_bytes(safetensors.numpy.save(arrays, metadata))


def load(path: str | pathlib.Path) -> Encoder:
  """Returns the encoder in a file, ready for use without data or workdir.

  Raises:
    UserError: if `write` did not make the file, or it is damaged.
  """
  with opened(path) as file:
    header = _read_header(file, path)
    config = convert.updated(presets.default_config(), header.settings)
    network = build.build_encoder(config)
    variables = _read_variables(file, header, network, config, path)
  return make_encoder(
    network,
    variables,
    Form(
      schema.image_shape(config.data),
      config.data.channels,
      config.data.eval_crop,
    ),
    step=header.step,
    about=header.about,
  )


def config_for(
  config: schema.Config, path: str | pathlib.Path
) -> schema.Config:
  """Returns a configuration with the settings that an encoder in a file needs.

  These are the encoder's architecture and precision, and how images are cropped,
  scaled and normalised for it. All other settings are those of `config`.

  Raises:
    UserError: if `write` did not make the file, or it is damaged.
  """
  with opened(path) as file:
    return convert.updated(config, _read_header(file, path).settings)


def read(
  path: str | pathlib.Path, config: schema.Config
) -> tuple[Header, Variables]:
  """Returns what a file says about its encoder, and the encoder's variables.

  Raises:
    UserError: if `write` did not make the file, it is damaged, or its arrays are
      not those of the encoder that `config` describes.
  """
  with opened(path) as file:
    header = _read_header(file, path)
    encoder = build.build_encoder(config)
    return header, _read_variables(file, header, encoder, config, path)


def restore(
  path: str | pathlib.Path, config: schema.Config, num_classes: int
) -> TrainState:
  """Returns the encoder in a file as a state to evaluate, not to train.

  Args:
    path: the file.
    config: from `config_for`.
    num_classes: outputs of the online classifier, which is all zeros.

  Raises:
    UserError: if `write` did not make the file, or it is damaged.
  """
  header, variables = read(path, config)
  network = build.build_network(config, num_classes)
  whole = architecture.shapes(network, config)
  params, state = (
    {
      module: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), leaves)
      for module, leaves in of_network.items()
      if module not in of_encoder
    }
    | dict(of_encoder)
    for of_network, of_encoder in zip(whole, variables, strict=True)
  )
  return TrainState(
    step=jnp.int32(header.step),
    online_params=params,
    target_params={},
    online_state=state,
    target_state={},
    opt_state=(),
  )


def _refusal(path: str | pathlib.Path, reason: object) -> errors.UserError:
  """Returns the error for a file; a reason may quote what the file contains."""
  text = str(reason)[:400].rstrip(".")
  text = "".join(c if c.isprintable() else " " for c in text)
  return errors.UserError(
    f"{path} cannot be read as an encoder: {text}; give a file that --mode=export"
    " wrote, or export it again."
  )


@contextlib.contextmanager
def opened(path: str | pathlib.Path) -> Iterator[Any]:
  """Opens a safetensors file without reading its arrays.

  Raises:
    UserError: if it is none.
  """
  try:
    with files.on_disk(path) as local:
      # Opening a pipe would wait for another program.
      if not stat.S_ISREG(local.stat().st_mode):
        raise _refusal(path, "it is no regular file")
      with local.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
      if size > _MOST_HEADER_BYTES:
        raise _refusal(
          path,
          f"its header would have {size} bytes, more than {_MOST_HEADER_BYTES}",
        )
      with safetensors.safe_open(local, framework="numpy") as file:
        yield file
  except (OSError, safetensors.SafetensorError) as error:
    raise _refusal(path, error) from error


def _read_header(file: Any, path: str | pathlib.Path) -> Header:
  """Returns the checked metadata of a file."""
  try:
    return encoder_header.parsed(file.metadata() or {})
  except errors.UserError as error:
    raise _refusal(path, error) from error


def _read_variables(
  file: Any,
  header: Header,
  encoder: hk.TransformedWithState,
  config: schema.Config,
  path: str | pathlib.Path,
) -> Variables:
  """Returns an encoder's variables, after all their shapes are found right."""
  params, state = architecture.shapes(encoder, config)
  by_name = encoder_arrays.by_name
  leaves = by_name("params", params) | by_name("state", state)
  wanted = {name: f"{x.shape} {x.dtype}" for name, x in leaves.items()}
  found = {}
  for name in file.keys():  # noqa: SIM118 (a file is no dictionary)
    part = file.get_slice(name)
    dtype = _TYPES.get(part.get_dtype(), part.get_dtype())
    found[name] = f"{tuple(part.get_shape())} {dtype}"
  for name in sorted(wanted.keys() | found.keys()):
    theirs, ours = (names.get(name, "absent") for names in (found, wanted))
    if theirs != ours:
      raise _refusal(
        path,
        f"for the {config.model.encoder.name} of its settings, {name!r} is"
        f" {theirs} there and should be {ours}",
      )
  sums = header.checksums
  if sums is not None and sums.keys() != wanted.keys():
    raise _refusal(path, "its checksums are those of other arrays")

  def read(kind: str, tree: Any) -> Any:
    return {
      module: {
        name: _read_array(file, f"{kind}/{module}/{name}", header, path)
        for name in leaves
      }
      for module, leaves in tree.items()
    }

  return read("params", params), read("state", state)


def _read_array(
  file: Any, name: str, header: Header, path: str | pathlib.Path
) -> np.ndarray:
  array = file.get_tensor(name)
  if header.checksums and header.checksums[name] != zlib.crc32(array):
    raise _refusal(path, f"{name} differs from its checksum")
  if not np.isfinite(array).all():
    raise _refusal(path, f"{name} holds NaN or infinity")
  return array
