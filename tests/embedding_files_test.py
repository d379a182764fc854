"""Embeddings in a file: a row for each image, written as they are computed."""

import importlib.util
import itertools
import types

import numpy as np
import pytest
from pyarrow import parquet

from byol_jax import errors
from byol_jax.evaluation import embedding_files
from byol_jax.evaluation.features import Features
from byol_jax.runtime import console

NAMES = ("cat", "dog")


def model_of(labels, batch_size, *, is_multi_label=False, watch=lambda: None):
  """A model whose features of image i are all i, and its number of images."""
  labels = np.asarray(labels, np.int32)
  count = len(labels)

  def feature_batches(split):
    assert split == "train"
    for start in range(0, count, batch_size):
      watch()
      rows = np.arange(start, min(start + batch_size, count), dtype=np.float32)
      yield Features(
        np.repeat(rows[:, None], 8, axis=1), labels[start:][: len(rows)]
      )

  source = types.SimpleNamespace(
    class_names=NAMES,
    is_multi_label=is_multi_label,
    example_ids=lambda split: [f"{i}.jpg" for i in range(count)],
    split_names=lambda split: ["train"] * count,
  )
  return types.SimpleNamespace(source=source, feature_batches=feature_batches)


def write(path, model):
  embedding_files.FORMATS["parquet"](path, model, "train")
  return parquet.read_table(path).to_pydict()


def test_each_row_has_its_id_split_class_and_embedding(tmp_path):
  found = write(tmp_path / "new" / "x.parquet", model_of([1, 0, -1, 1, 1], 2))
  assert found == {
    "id": [f"{i}.jpg" for i in range(5)],
    "split": ["train"] * 5,
    "label": [1, 0, None, 1, 1],
    "class_name": ["dog", "cat", None, "dog", "dog"],
    "embedding": [[float(i)] * 8 for i in range(5)],
  }
  assert [x.name for x in (tmp_path / "new").iterdir()] == ["x.parquet"]


def test_an_image_of_several_classes_has_lists(tmp_path):
  labels = [[1, 1], [0, 0], [0, 1]]
  model = model_of(labels, 2, is_multi_label=True)
  found = write(tmp_path / "x.parquet", model)
  assert found["label"] == [[0, 1], [], [1]]
  assert found["class_name"] == [["cat", "dog"], [], ["dog"]]


def test_rows_are_on_the_disk_before_the_last_are_computed(
  tmp_path, monkeypatch
):
  """A group of four batches of 3 x 8 float32 is held at most."""
  monkeypatch.setattr(embedding_files, "_GROUP_BYTES", 4 * 3 * 8 * 4)
  path, sizes = tmp_path / "x.parquet", []

  def watch():
    assert not path.exists()
    sizes.append(sum(x.stat().st_size for x in tmp_path.iterdir()))

  write(path, model_of([0] * 100, 3, watch=watch))
  grown = [i for i, (a, b) in enumerate(itertools.pairwise(sizes)) if b > a]
  assert [i % 4 for i in grown] == [3] * 8
  metadata = parquet.read_metadata(path)
  rows = [
    metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
  ]
  assert rows == [12] * 8 + [4]


def test_an_interrupted_file_leaves_the_old_one(tmp_path):
  path = tmp_path / "x.parquet"
  path.write_text("old")

  def watch():
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write(path, model_of([0], 1, watch=watch))
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_a_format_that_cannot_be_written_is_one_line(monkeypatch):
  with pytest.raises(
    errors.UserError, match="'csv' is unknown; choose one of: npz, parquet"
  ):
    embedding_files.check("csv")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.UserError, match="needs the package pyarrow"):
    embedding_files.check("parquet")


def test_the_time_left_is_shown_of_what_takes_long(capsys, monkeypatch):
  with console.images(100, "Features", is_shown=True) as bar:
    bar.update(60)
    assert not capsys.readouterr().err
    now = bar._time()
    monkeypatch.setattr(bar, "_time", lambda: now + 31)
    bar.update(20)
    assert (
      "80% Features: 80/100 images [00:31<00:07]" in capsys.readouterr().err
    )
  capsys.readouterr()
  with console.images(100, "Features", is_shown=False) as bar:
    bar.update(100)
  assert not capsys.readouterr().err
