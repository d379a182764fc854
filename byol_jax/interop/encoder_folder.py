"""Loads an encoder from its file, or from a folder that holds it."""

import pathlib

from byol_jax import errors
from byol_jax.interop import encoder_file
from byol_jax.interop.encoder import Encoder
from byol_jax.runtime import files

# In the order in which they are looked for: in a workdir, in the folder that
# --mode=export wrote, and under the name that model hubs use.
_FILES = (
  "encoder/encoder.safetensors",
  "encoder.safetensors",
  "model.safetensors",
)


def load_encoder(path: str | pathlib.Path) -> Encoder:
  """Returns a trained encoder, ready for use without its data or TensorFlow.

  Args:
    path: of a file that --mode=export wrote, of the workdir where it did, or of any
      folder that holds such a file as encoder.safetensors or model.safetensors.

  Raises:
    UserError: if there is no such file, or it cannot be read as an encoder.
  """
  folder = files.to_path(path)
  if not folder.is_dir():
    return encoder_file.load(path)
  for name in _FILES:
    if (folder / name).exists():
      return encoder_file.load(folder / name)
  raise errors.UserError(
    f"{path} holds none of {', '.join(_FILES)}; give the path of an encoder, or of a"
    " workdir after --mode=export."
  )
