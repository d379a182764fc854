"""Embeddings of images, beside what identifies them."""

import pathlib
import re

import numpy as np

from byol_jax import errors, input_pipeline, train
from byol_jax.evaluation import subject as subjects
from byol_jax.learner import TrainState


def write(run: train.Run, state: TrainState, split: str) -> pathlib.Path:
  """Writes the online encoder's features of a split.

  Args:
    run: from `train.prepare`; `evaluation.dataset` names the data.
    state: what was trained.
    split: tfds split expression; empty for the data set's train split.

  Returns:
    The file: an `.npz` of `ids` [N] (a folder's file names; else the record
    file and the place in it, as tfds has them), `embeddings` [N, D] float32
    and `labels` [N] int32, -1 where unknown.

  Raises:
    UserError: if the split is unknown or the file cannot be written.
  """
  source = subjects.open_source(run)
  split = split or source.dataset.train
  ids = input_pipeline.example_ids(source, split)
  subject = subjects.online(run, source, state)
  found = subjects.features_of(subject, split)
  name = re.sub(r"\W+", "_", f"{source.dataset.tfds_name}_{split}").strip("_")
  path = run.workdir / "embeddings" / f"{name}.npz"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, ids=ids, embeddings=found.vectors, labels=found.labels)
  except OSError as error:
    raise errors.UserError(
      f"Cannot write {path}: {error.strerror}; free space there and run again."
    ) from error
  return path
