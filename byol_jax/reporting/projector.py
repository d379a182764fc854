"""Features with their images and classes, for TensorBoard's projector."""

import math
import pathlib

from byol_jax import errors
from byol_jax.reporting import examples, markup, style
from byol_jax.runtime import files
from byol_jax.training import runs

# Images, and the pixels a side of their thumbnails: our choice, 20 MB of text for the
# features of a ResNet-50.
_IMAGES, _SIDE = 1000, 32


def write(run: runs.Run) -> None:
  """Writes what the projector shows to `tensorboard/`, if features are kept.

  Raises:
    UserError: a file cannot be written.
  """
  try:
    found = examples.evaluated(run, _IMAGES)
  except errors.UserError:  # The page says that images cannot be read.
    return
  if found is None:
    return
  folder = run.workdir / "tensorboard"
  _write(
    folder / "features.tsv",
    "".join("\t".join(f"{x:.6g}" for x in row) + "\n" for row in found.vectors),
  )
  _write(
    folder / "labels.tsv", "".join(f"{x or 'no label'}\n" for x in found.names)
  )
  columns = math.ceil(math.sqrt(len(found.images)))
  side = columns * _SIDE
  sheet = markup.sheet(found.images, _SIDE, columns)
  with files.atomic_write(folder / "sprite.png", style.REMEDY) as file:
    sheet.crop((0, 0, side, side)).save(
      file, "PNG"
    )  # The projector wants squares.
  _write(
    folder / "projector_config.pbtxt",
    f"""embeddings {{
  tensor_name: "features of {found.split}"
  tensor_path: "features.tsv"
  metadata_path: "labels.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {_SIDE}
    single_image_dim: {_SIDE}
  }}
}}
""",
  )


def _write(path: pathlib.Path, text: str) -> None:
  with files.atomic_write(path, style.REMEDY) as file:
    file.write_text(text)
