"""Which files of a folder, or of a list, are found."""

import inspect
import os
import sys

import pytest

from byol_jax.data import folder_layout, folder_scan
from tests.image_folders import (
  fill,
  labels_of,
  load,
  load_error,
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
  for folder in (b"caf\xe8", b"caf\xe9", b"\xff"):
    (root / os.fsdecode(folder)).mkdir()
    (root / os.fsdecode(folder) / "a.jpg").write_bytes(photo())
    (root / os.fsdecode(folder) / "b.jpg").write_bytes(b"")
  folder = load(root, max_broken=0.5)
  assert set(stored(folder)) == {
    "x.jpg",
    *(f"{name}/a.jpg" for name in (r"caf\xe8", r"caf\xe9", r"\xff")),
  }
  assert {name for name, _ in folder.broken} == {
    *(f"{name}/b.jpg" for name in (r"caf\xe8", r"caf\xe9", r"\xff")),
  }


@pytest.mark.parametrize("data_dir", [".", "data"])
def test_records_below_the_root_are_not_taken_for_its_files(tmp_path, data_dir):
  root = fill(tmp_path / "root", tree("1.png", "2.png"))
  for _ in range(2):
    assert load(root, data_dir=root / data_dir).broken == []
  assert len(prepared(root / data_dir)) == 1


def test_folders_may_lie_deeper_than_python_recurses(tmp_path):
  name = "/".join("d" * 300) + "/1.png"
  root = fill(tmp_path / "root", tree(name))
  limit = sys.getrecursionlimit()
  sys.setrecursionlimit(len(inspect.stack()) + 100)
  try:
    files = folder_scan.list_files(str(root), "")
    layout = folder_layout.arrange(str(root), files, has_classes=True)
  finally:
    sys.setrecursionlimit(limit)
  assert [file.path for file in layout.files] == [name]


def test_names_with_line_breaks_stay_one_line(tmp_path):
  root = fill(tmp_path / "root", tree("a\nb/1\n.png", "c /2.png"))
  (root / "c " / "3\t.png").touch()
  folder = load(root, max_broken=0.5)
  assert folder.broken == [("c /3\\t.png", "empty file")]
  assert labels_of(folder) == {"a\\nb/1\\n.png": "a\\nb", "c /2.png": "c"}


def listed(path, *lines):
  path.write_bytes(b"\n".join(os.fsencode(line) for line in lines))
  return path


def test_a_text_file_can_list_images(tmp_path):
  root = fill(
    tmp_path / "root", tree("a/1.png", "a/2.png", "b/3.png", "b/4\udcff.png")
  )
  lines = ("# Mine", "", f"{root}/a/1.png", "b/3.png\r", "  ./b/../b/3.png")
  lines = (*lines, "a/gone.png", "b/4\udcff.png", "b")
  path = listed(root / "list.txt", *lines[:-1])
  folder = load(path, data_dir=tmp_path / "data", max_broken=0.5)
  assert labels_of(folder) == {
    "a/1.png": "a",
    "b/3.png": "b",
    "b/4\\xff.png": "b",
  }
  assert folder.broken == [
    ("a/gone.png", "cannot be read: No such file or directory")
  ]
  listed(path, *lines)
  message = load_error(path, data_dir=tmp_path / "data")
  assert f"{root}/b, which {path} lists, is not a file" in message


def test_listed_images_may_lie_elsewhere(tmp_path):
  root = fill(tmp_path / "images", tree("train/a/1.png", "val/b/2.png"))
  (tmp_path / "lists").mkdir()
  path = listed(
    tmp_path / "lists" / "my.lst",
    "../images/train/a/1.png",
    f"{root}/val/b/2.png",
  )
  folder = load(path, data_dir=tmp_path / "data")
  assert labels_of(folder) == {"train/a/1.png": "a"}
  assert labels_of(folder, "validation") == {"val/b/2.png": "b"}


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    (b"# nothing\n\n", "lists no file"),
    (b"\x89PNG\0\n", "is neither a folder nor a text file"),
  ],
)
def test_what_lists_no_images_is_refused(tmp_path, content, problem):
  (tmp_path / "x").write_bytes(content)
  assert f"{tmp_path / 'x'} {problem}" in load_error(tmp_path / "x")
  assert not (tmp_path / "data").exists()


def test_pipes_are_not_read(tmp_path):
  os.mkfifo(tmp_path / "pipe")  # Reading it would never end.
  assert "pipe is not a folder" in load_error(tmp_path / "pipe")
  path = listed(tmp_path / "list", "pipe")
  assert "is not a file" in load_error(path)
  assert "pipe' is unknown" in load_error(
    tmp_path, labels=str(tmp_path / "pipe")
  )
