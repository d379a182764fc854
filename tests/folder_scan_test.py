"""Which files of a folder are found, and the splits that folders make."""

import os

import pytest

from tests.image_folders import (
  fill,
  labels_of,
  load,
  photo,
  prepared,
  stored,
  tree,
)


def test_hidden_names_are_ignored(tmp_path):
  names = ("a.jpg", ".DS_Store", "._a.jpg", ".cache/b.jpg", "b/.c/d.jpg")
  root = fill(tmp_path / ".hidden root", dict.fromkeys(names, photo()))
  assert set(stored(load(root))) == {"a.jpg"}


def test_links_are_followed_but_not_in_circles(tmp_path):
  root = fill(tmp_path / "root", {"a/x.jpg": photo()})
  elsewhere = fill(tmp_path / "elsewhere", {"y.jpg": photo(1)})
  (root / "a" / "file.jpg").symlink_to(elsewhere / "y.jpg")
  (root / "b").symlink_to(elsewhere)
  (root / "a" / "up").symlink_to(root)
  (root / "a" / "self").symlink_to("self")
  (root / "a" / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
  os.mkfifo(root / "a" / "pipe.jpg")  # Reading it would never end.
  folder = load(root, max_broken=0.5)
  assert set(stored(folder)) == {"a/x.jpg", "a/file.jpg", "b/y.jpg"}
  reasons = dict(folder.broken)
  assert set(reasons) == {"a/nowhere.jpg", "a/pipe.jpg", "a/self"}
  assert reasons["a/nowhere.jpg"] == "cannot be read: No such file or directory"


def test_names_that_are_not_unicode_are_stored(tmp_path):
  root = fill(tmp_path / "root", {"x.jpg": photo()})
  for folder in (b"caf\xe9", b"\xff"):
    (root / os.fsdecode(folder)).mkdir()
    (root / os.fsdecode(folder) / "a.jpg").write_bytes(photo())
    (root / os.fsdecode(folder) / "b.jpg").write_bytes(b"")
  folder = load(root, max_broken=0.5)
  assert set(stored(folder)) == {"x.jpg", "caf\ufffd/a.jpg", "\ufffd/a.jpg"}
  assert {name for name, _ in folder.broken} == {
    "caf\ufffd/b.jpg",
    "\ufffd/b.jpg",
  }


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_folders_can_be_the_splits(tmp_path, test):
  train = ("train/a/1.png", "train/b/x/2.png")
  held_out = (f"{test}/b/1.png", f"{test}/c/2.png")
  others = ("extra/a/1.png", "outside.png")
  folder = load(
    fill(tmp_path / "root", tree(*train, *held_out, *others)), test_share=0.9
  )
  assert folder.builder.info.features["label"].names == ["a", "b", "c"]
  assert set(stored(folder, "train")) == set(train)
  assert labels_of(folder, "test") == dict(zip(held_out, "bc", strict=True))


def test_folder_called_test_is_preferred_to_one_called_val(tmp_path):
  root = fill(tmp_path / "root", tree("train/1.png", "val/2.png", "test/3.png"))
  folder = load(root)
  assert set(stored(folder, "test")) == {"test/3.png"}
  assert "label" not in folder.builder.info.features


def test_folder_called_train_alone_is_a_class(tmp_path):
  root = fill(tmp_path / "root", tree("train/1.png", "car/2.png"))
  assert load(root).builder.info.features["label"].names == ["car", "train"]


@pytest.mark.parametrize("data_dir", [".", "data"])
def test_records_below_the_root_are_not_taken_for_its_files(tmp_path, data_dir):
  root = fill(tmp_path / "root", tree("1.png", "2.png"))
  for _ in range(2):
    assert load(root, data_dir=root / data_dir).broken == []
  assert len(prepared(root / data_dir)) == 1
