"""Embeddings of images, beside what identifies them."""

import pathlib

import numpy as np

from byol_jax import errors
from byol_jax.data import input_pipeline, loading
from byol_jax.evaluation import features
from byol_jax.evaluation import subject as subjects
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files, processes
from byol_jax.training import runs


def write(run: runs.Run, state: TrainState, split: str) -> pathlib.Path:
  """Writes the online encoder's features of a split.

  Args:
    run: from `train.prepare`; `evaluation.dataset` names the data.
    state: what was trained.
    split: tfds split expression; empty for what evaluations learn from.

  Returns:
    The file: an `.npz` of `ids` [N] (a folder's file names; else the record
    file and the place in it, as tfds has them), `embeddings` [N, D] float32
    and `labels`, see `features.Features`.

  Raises:
    UserError: if the split is unknown or the file cannot be written.
  """
  source = subjects.open_source(run)
  split = split or run.config.evaluation.train_split or source.dataset.train
  if not loading.num_examples(source, split):
    raise errors.UserError(f"split {split!r} is empty; choose another --split.")
  ids = input_pipeline.example_ids(source, split)
  subject = subjects.online(run, source, state)
  found = subjects.features_of(subject, split)
  path = run.workdir / "embeddings" / f"{subjects.name_of(source, split)}.npz"
  if not processes.is_first():
    return path
  with files.replacing(path, features.WRITE_AGAIN) as file:
    np.savez(file, ids=ids, embeddings=found.vectors, labels=found.labels)
  return path
