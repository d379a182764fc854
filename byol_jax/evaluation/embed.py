"""Writes the features of images to a file, with their ids and labels."""

import pathlib
from typing import NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.data import source as source_lib
from byol_jax.data.source import Source
from byol_jax.evaluation import eval_model
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.feature_cache import WRITE_REMEDY
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files, processes
from byol_jax.training import runs, workdir_files


class Embeddings(NamedTuple):
  """The file that `write` has written.

  Attributes:
    path: of an `.npz` with `ids` [N] (file names for a folder of images, else
      tfds ids: record file and index), `embeddings` [N, D] float32, `labels` as
      in `features.Features`, `split` [N], the name of the split of each image,
      and `class_names` [C] by label.
    split: the split expression of the images.
    num_images: N.
    source: the data set that they are from.
  """

  path: pathlib.Path
  split: str
  num_images: int
  source: Source


def write(run: runs.Run, state: TrainState, split: str) -> Embeddings:
  """Writes the online encoder's features of a split or of all images.

  Args:
    run: from `runs.prepare`; `evaluation.dataset` names the data set.
    state: the trained state.
    split: tfds split expression; empty for all splits.

  Raises:
    UserError: if the split is unknown or empty, or the file cannot be written.
  """
  source = processes.primary_first(lambda: splits_lib.open_source(run))
  split = split or source_lib.all_splits(source)
  count = source.num_examples(split)
  if not count:
    raise errors.UserError(f"split {split!r} is empty; choose another --split.")
  ids = source.example_ids(split)
  features = eval_model.online(run, source, state).features(split)
  name = f"{splits_lib.file_name(source, split)}.npz"
  path = run.workdir / "embeddings" / name
  if processes.is_primary():
    workdir_files.add_class_names(
      run.workdir, source.dataset.tfds_name, source.class_names
    )
    with files.atomic_write(path, WRITE_REMEDY) as file:
      np.savez(
        file,
        ids=ids,
        embeddings=features.vectors,
        labels=features.labels,
        split=source.split_names(split),
        class_names=np.array(source.class_names, np.str_),
      )
  return Embeddings(path, split, count, source)
