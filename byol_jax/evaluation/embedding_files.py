"""The files of embeddings: one row per image, with its id, split and class.

An id is the path of an image below its folder; for other data sets, its record file
and its index in it.
"""

import contextlib
import importlib.util
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from byol_jax import errors
from byol_jax.data.source import Source
from byol_jax.evaluation.eval_model import EvalModel
from byol_jax.evaluation.feature_cache import WRITE_REMEDY
from byol_jax.evaluation.features import Features
from byol_jax.runtime import files, processes

# Embeddings that are held until they are written. Our choice: parquet readers skip
# whole groups, which should be neither many nor large.
_GROUP_BYTES = 64_000_000


def check(name: str) -> None:
  """Raises `UserError` if a format is unknown or cannot be written."""
  if name not in FORMATS:
    raise errors.unknown_name("--format", name, FORMATS)
  if name == "parquet" and not importlib.util.find_spec("pyarrow"):
    raise errors.UserError(
      "--format=parquet needs the package pyarrow; install it, or leave --format"
      " out to write npz."
    )


def _write_npz(path: pathlib.Path, model: EvalModel, split: str) -> None:
  """Writes arrays; `features.Features` has the form of the labels.

  They are `ids` [N], `embeddings` [N, D] float32, `labels`, `split` [N] and
  `class_names` [C] by label.
  """
  source = model.source
  features = model.features(split)
  if not processes.is_primary():
    return
  with files.atomic_write(path, WRITE_REMEDY) as file:
    np.savez(
      file,
      ids=source.example_ids(split),
      embeddings=features.vectors,
      labels=features.labels,
      split=source.split_names(split),
      class_names=np.array(source.class_names, np.str_),
    )


def _write_parquet(path: pathlib.Path, model: EvalModel, split: str) -> None:
  """Writes a table as its rows are computed, without holding all of them.

  Its columns are `id`, `split`, `label` and `class_name`, which are null where the
  class is unknown and lists where an image may have several, and `embedding`, a list
  of D float32.
  """
  groups = _groups(model.feature_batches(split))
  if not processes.is_primary():
    for _ in groups:  # Computing takes all processes.
      pass
    return
  import pyarrow as pa
  from pyarrow import parquet

  source = model.source
  ids = iter(source.example_ids(split))
  names = iter(source.split_names(split))
  with (
    files.atomic_write(path, WRITE_REMEDY) as file,
    contextlib.ExitStack() as stack,
  ):
    writer = None
    for group in groups:
      count = len(group.labels)
      size = group.vectors.shape[1]
      vectors = pa.array(np.ascontiguousarray(group.vectors).reshape(-1))
      table = pa.table(
        {
          "id": pa.array(itertools.islice(ids, count), pa.string()),
          "split": pa.array(itertools.islice(names, count), pa.string()),
          **_classes(source, group.labels),
          "embedding": pa.FixedSizeListArray.from_arrays(vectors, size),
        }
      )
      # Numbers that differ in each row would only fill dictionaries.
      writer = writer or stack.enter_context(
        parquet.ParquetWriter(
          file, table.schema, use_dictionary=["split", "class_name"]
        )
      )
      writer.write_table(table)


def _groups(batches: Iterator[Features]) -> Iterator[Features]:
  """Joins batches of features into groups of about `_GROUP_BYTES`."""
  held: list[Features] = []
  for batch in batches:
    held.append(batch)
    if len(held) * batch.vectors.nbytes >= _GROUP_BYTES:
      yield _joined(held)
      held = []
  if held:
    yield _joined(held)


def _joined(batches: list[Features]) -> Features:
  return Features(*map(np.concatenate, zip(*batches, strict=True)))


def _classes(source: Source, labels: np.ndarray) -> Mapping[str, Any]:
  """Returns the columns of the labels and of the names of the classes."""
  import pyarrow as pa

  names = source.class_names
  if source.is_multi_label:
    of_each = [np.flatnonzero(row > 0).tolist() for row in labels]
    return {
      "label": pa.array(of_each, pa.list_(pa.int32())),
      "class_name": pa.array(
        [[names[label] for label in row] for row in of_each],
        pa.list_(pa.string()),
      ),
    }
  known = labels >= 0
  return {
    "label": pa.array(labels, pa.int32(), mask=~known),
    "class_name": pa.array(
      [names[label] if label >= 0 else None for label in labels], pa.string()
    ),
  }


FORMATS: dict[str, Callable[[pathlib.Path, EvalModel, str], None]] = {
  "npz": _write_npz,
  "parquet": _write_parquet,
}
