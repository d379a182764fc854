"""Writes the features of images to a file, with their ids and labels."""

import pathlib
from typing import NamedTuple

from byol_jax import errors
from byol_jax.data import source as source_lib
from byol_jax.data.source import Source
from byol_jax.evaluation import embedding_files, eval_model
from byol_jax.evaluation import splits as splits_lib
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import processes
from byol_jax.training import runs, workdir_files


class Embeddings(NamedTuple):
  """The file that `write` has written.

  Attributes:
    path: of the file, see `embedding_files`.
    split: the split expression of the images.
    num_images: N.
    source: the data set that they are from.
  """

  path: pathlib.Path
  split: str
  num_images: int
  source: Source


def write(
  run: runs.Run, state: TrainState, split: str, file_format: str = "npz"
) -> Embeddings:
  """Writes the online encoder's features of a split or of all images.

  Args:
    run: from `runs.prepare`; `evaluation.dataset` names the data set.
    state: the trained state.
    split: tfds split expression; empty for all splits.
    file_format: a name in `embedding_files.FORMATS`.

  Raises:
    UserError: if the split or the format is unknown, the split is empty, or the
      file cannot be written.
  """
  embedding_files.check(file_format)
  source = processes.primary_first(lambda: splits_lib.open_source(run))
  split = split or source_lib.all_splits(source)
  count = source.num_examples(split)
  if not count:
    raise errors.UserError(f"split {split!r} is empty; choose another --split.")
  name = f"{splits_lib.file_name(source, split)}.{file_format}"
  path = run.workdir / "embeddings" / name
  if processes.is_primary():
    workdir_files.add_class_names(
      run.workdir, source.dataset.tfds_name, source.class_names
    )
  model = eval_model.online(run, source, state)
  embedding_files.FORMATS[file_format](path, model, split)
  return Embeddings(path, split, count, source)
