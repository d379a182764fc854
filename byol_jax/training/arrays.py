"""Writes the images of a run to a file of arrays."""

import pathlib

from byol_jax.data import array_file
from byol_jax.runtime import files
from byol_jax.training.runs import Run

_REMEDY = "free space there, or choose another --workdir"


def write(run: Run) -> tuple[pathlib.Path, int]:
  """Writes all splits of the data set of a run to `arrays.npz`.

  The file has statistics, classes and the use of splits, so that a run from it
  equals one from the data set.

  Args:
    run: from `runs.prepare`.

  Returns:
    The path in the workdir, and the bytes of the file.

  Raises:
    UserError: if a file cannot be read or written.
  """
  source, channels = run.source, run.config.data.channels
  splits = {
    name: source.decode(name, channels, multi_label=True)
    for name, size in source.split_sizes().items()
    if size
  }
  dataset = source.dataset
  about = array_file.About(
    source.class_names,
    dataset.pretrain,
    dataset.metric,
    dataset.statistics or source.measure(),
  )
  path = run.workdir / "arrays.npz"
  with files.atomic_write(path, _REMEDY) as file:
    array_file.write(file, splits, about)
    size = file.stat().st_size
  return path, size
