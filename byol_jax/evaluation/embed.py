"""Writes the features of a split to a file, with the ids of its images."""

import pathlib

import numpy as np

from byol_jax import errors
from byol_jax.data import loading, split_contents
from byol_jax.evaluation import eval_model
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.feature_cache import WRITE_REMEDY
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files, processes
from byol_jax.training import runs


def write(run: runs.Run, state: TrainState, split: str) -> pathlib.Path:
  """Writes the online encoder's features of a split.

  Args:
    run: from `runs.prepare`; `evaluation.dataset` names the data set.
    state: the trained state.
    split: tfds split expression; empty for the train split of evaluations.

  Returns:
    The path of an `.npz` with `ids` [N] (file names for a folder of images,
    else tfds ids: record file and index), `embeddings` [N, D] float32 and
    `labels` as in `features.Features`.

  Raises:
    UserError: if the split is unknown or empty, or the file cannot be written.
  """
  source = processes.primary_first(lambda: splits_lib.open_source(run))
  split = split or run.config.evaluation.train_split or source.dataset.train
  if not loading.num_examples(source, split):
    raise errors.UserError(f"split {split!r} is empty; choose another --split.")
  ids = split_contents.example_ids(source, split)
  features = eval_model.online(run, source, state).features(split)
  name = f"{splits_lib.file_name(source, split)}.npz"
  path = run.workdir / "embeddings" / name
  if not processes.is_primary():
    return path
  with files.atomic_write(path, WRITE_REMEDY) as file:
    np.savez(file, ids=ids, embeddings=features.vectors, labels=features.labels)
  return path
