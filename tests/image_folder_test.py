"""Opening folders of images: what is written once, and mistakes."""

import io
import json
import multiprocessing
import os
import pathlib
import shutil

import PIL.Image
import pytest

from byol_jax.config import schema
from byol_jax.data import (
  folder_builder,
  folder_inspect,
  image_folder,
  image_formats,
)
from byol_jax.data.folder_listing import Scan
from byol_jax.data.folder_scan import File
from tests.image_folders import (
  encoded,
  fill,
  labels_of,
  load,
  load_error,
  prepared,
  read,
  stored,
  tree,
)


def test_folder_is_prepared_once(tmp_path, monkeypatch):
  root = fill(tmp_path / "root", tree("a/1.png", "b/2.png") | {"c.png": b""})
  first = load(root, max_broken=0.5)
  monkeypatch.setattr(folder_inspect, "inspect", None)
  second = load(root, max_broken=0.5)
  assert second[1:] == first[1:]
  assert stored(second) == stored(first)
  assert labels_of(second) == labels_of(first)


def test_records_are_in_the_documented_folder(tmp_path):
  root = fill(tmp_path / "My cäts!", tree("a.png"))
  path = pathlib.Path(load(root).builder.data_dir)
  assert path.relative_to(tmp_path / "data").match("image_folder/*/1.0.0")
  name, _, digits = path.parent.name.rpartition("-")
  assert name == "My_c_ts_"
  assert len(digits) == 16
  int(digits, 16)
  assert json.loads((path / "metadata.json").read_text())["side"] == 8


def test_key_of_records_is_fixed():
  files = [
    File("a/1.png", 12, 1_700_000_000_000_000_000, "train", "a"),
    File("b/\udcff 'x'.jpg", -1, -1, "test", "b"),
  ]
  scan = Scan("/anywhere", files, "")
  key = image_folder.cache_key(scan, schema.DataConfig(test_share=0.1))
  assert key == "93bfb1e1ccdf10db"  # Else all folders are written again.


def change_time(root):
  os.utime(root / "a/1.png", ns=(1, 1))


@pytest.mark.parametrize(
  "change",
  [
    change_time,
    lambda root: fill(root, tree("a/3.png")),
    lambda root: (root / "a/2.png").unlink(),
    lambda root: (root / "a/1.png").rename(root / "a/0.png"),
  ],
)
def test_changed_folder_is_prepared_anew(tmp_path, change):
  root = fill(tmp_path / "root", tree("a/1.png", "a/2.png"))
  load(root)
  change(root)
  names = {str(path.relative_to(root)) for path in root.glob("a/*")}
  assert set(stored(load(root))) == names
  assert len(prepared(tmp_path / "data")) == 2


def moved(root, to, *, keeps_times=True):
  shutil.copytree(
    root, to, copy_function=shutil.copy2 if keeps_times else shutil.copyfile
  )
  return to


def test_a_folder_is_known_by_its_images_whatever_path_leads_to_it(
  tmp_path, monkeypatch
):
  root = fill(tmp_path / "root", tree("a/1.png", "b/2.png"))
  data_dir = tmp_path / "data"
  first = load(root, data_dir=data_dir)
  (tmp_path / "link").symlink_to(root)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(folder_inspect, "inspect", None)
  elsewhere = moved(root, tmp_path / "job" / ".other")
  for path in (f"{root}/", "root", "../" + tmp_path.name + "/root", "link"):
    assert load(path, data_dir=data_dir).fingerprint == first.fingerprint
  shutil.rmtree(root)
  again = load(elsewhere, data_dir=data_dir)
  assert again.fingerprint == first.fingerprint
  assert stored(again) == stored(first)
  assert len(prepared(data_dir)) == 1


def test_copies_have_the_same_fingerprint_and_the_same_order_of_records(
  tmp_path,
):
  names = [f"{c}/{i}.png" for c in "ab" for i in range(20)]
  root = fill(tmp_path / "one" / "x", tree(*names))
  copy = moved(root, tmp_path / "two" / "y", keeps_times=False)
  first, second = (load(path, test_share=0.1) for path in (root, copy))
  assert first.fingerprint == second.fingerprint
  assert len(prepared(tmp_path / "one" / "data")) == 1
  for split in ("train", "test"):
    one, two = (read(folder, split) for folder in (first, second))
    assert [e["file"] for e in one] == [e["file"] for e in two]
    assert [e["file"] for e in one] != sorted(e["file"] for e in one)


def square(colour):
  """An image whose size in bytes does not depend on its colour."""
  return encoded(PIL.Image.new("RGB", (8, 8), colour), "BMP")


@pytest.mark.parametrize(
  "change",
  [
    lambda root: fill(root, {"a/2.bmp": square("blue")}),
    lambda root: (root / "a/1.png").rename(root / "a/0.png"),
    lambda root: (root / "a/1.png").rename(root / "b/1.png"),
    lambda root: (root / "a/1.png").unlink(),
  ],
)
def test_other_images_have_another_fingerprint(tmp_path, change):
  files = tree("a/1.png", "b/3.png") | {"a/2.bmp": square("red")}
  root = fill(tmp_path / "root", files)
  first = load(root)
  change(root)
  assert load(root).fingerprint != first.fingerprint


def test_other_labels_and_splits_have_another_fingerprint(tmp_path):
  root = fill(tmp_path / "root", tree("1.png", "2.png", "3.png"))
  rows = {"1.png": "a,train", "2.png": "b,train", "3.png": "a,test"}
  found = set()
  for changes in (
    {},
    {"1.png": "a,test", "3.png": "a,train"},
    {"1.png": "b,train", "2.png": "a,train"},
  ):
    lines = [f"{name},{use}" for name, use in (rows | changes).items()]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["file,label,split", *lines]))
    found.add(load(root, labels=str(path)).fingerprint)
  assert len(found) == 3


def test_files_that_can_be_read_later_are_used_then(tmp_path, monkeypatch):
  root = fill(tmp_path / "root", tree("1.png", "2.png"))
  with monkeypatch.context() as patch:
    patch.setattr(os, "access", lambda path, mode: not path.endswith("2.png"))
    assert len(stored(load(root))) == 2  # Only the key of the records differs.
  assert len(stored(load(root))) == 2
  assert len(prepared(tmp_path / "data")) == 2


def test_a_new_decoder_reads_what_was_left_out(tmp_path, monkeypatch):
  heic = b"\0\0\0\x18ftypheic" + bytes(20)
  root = fill(tmp_path / "root", tree("1.png") | {"2.HEIC": heic})
  known = image_formats._decoders()
  for formats in (set(known) - {"HEIF"}, {*known, "HEIF"}):
    monkeypatch.setattr(image_formats, "_decoders", lambda f=formats: f)
    broken = load(root, max_broken=0.5).broken
  assert "HEIC" not in broken[0].reason  # Pillow lacks it all the same here.
  assert len(prepared(tmp_path / "data")) == 2


def test_a_broken_file_does_not_change_the_fingerprint(tmp_path):
  root = fill(tmp_path / "root", tree("1.png", "2.png"))
  first = load(root)
  fill(root, {"notes.txt": b"text"})
  assert load(root, max_broken=0.5).fingerprint == first.fingerprint


def test_folders_and_options_do_not_mix(tmp_path):
  files = tree(*(f"{c}/{i}.png" for c in "ab" for i in range(4)))
  one = load(fill(tmp_path / "one" / "x", files), data_dir=tmp_path / "data")
  two = load(
    fill(tmp_path / "two" / "x", tree("1.png")), data_dir=tmp_path / "data"
  )
  half = load(
    tmp_path / "one" / "x", data_dir=tmp_path / "data", test_share=0.5
  )
  assert len(stored(one)) == 8
  assert len(stored(two)) == 1
  assert len(stored(half)) == len(stored(half, "test")) == 4
  assert "label" not in two.builder.info.features
  assert len(prepared(tmp_path / "data")) == 3


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  fill(tmp_path / "root", tree("1.png"))
  folder = load("~/root", data_dir=tmp_path / "data")
  assert set(stored(folder)) == {"1.png"}


def test_nothing_is_printed_without_a_terminal(tmp_path, capfd):
  load(fill(tmp_path / "root", tree("a/1.png", "b/2.png")))
  out, err = capfd.readouterr()
  assert out == ""
  assert "Preparing" not in err


def test_terminal_shows_progress(tmp_path, monkeypatch):
  terminal = io.StringIO()
  monkeypatch.setattr(terminal, "isatty", lambda: True)
  monkeypatch.setattr("sys.stderr", terminal)
  load(fill(tmp_path / "root", tree("1.png", "2.png")))
  assert "Preparing root: 100%" in terminal.getvalue()
  assert "2/2" in terminal.getvalue()


def test_root_must_exist(tmp_path):
  root = tmp_path / "gone"
  assert f"{root} is not a folder" in load_error(root)
  assert not (tmp_path / "data").exists()


def test_unknown_labels_list_the_known_ones(tmp_path):
  assert "one of: folders, none, the path" in load_error(tmp_path, labels="csv")


def test_folder_without_images_is_refused_with_a_reason(tmp_path):
  root = tmp_path / "root"
  root.mkdir()
  assert "no files" in load_error(root, max_broken=0.9)
  fill(root, {"a.txt": b"text", "b.jpg": b""})
  message = load_error(root, max_broken=0.9)
  assert f"{root} holds no images" in message
  assert "first problem: a.txt (not an image)" in message
  assert not prepared(tmp_path / "data")


def test_split_for_training_must_hold_images(tmp_path):
  root = fill(tmp_path / "root", tree("test/a.png") | {"train/b.png": b""})
  assert "train/b.png (empty file)" in load_error(root, max_broken=0.9)


def test_too_many_broken_files_are_refused(tmp_path):
  files = tree("a.png", "d.png", "e.png") | {"b.png": b"", "c.png": b"text"}
  root = fill(tmp_path / "root", files)
  message = load_error(root, max_broken=0.3)
  assert f"2 of 5 files in {root} cannot be used" in message
  assert "data.max_broken=0.3" in message
  assert "first: b.png (empty file)" in message
  assert not prepared(tmp_path / "data")
  assert len(stored(load(root, max_broken=0.4))) == 3
  assert message == load_error(root, max_broken=0.3)  # Now it is prepared.


def test_data_dir_that_cannot_be_written_is_a_users_mistake(tmp_path):
  root = fill(tmp_path / "root", tree("a.png"))
  (tmp_path / "data").write_text("a file in the way")
  message = load_error(root)
  assert str(tmp_path / "data") in message
  assert "data.data_dir" in message


def test_interrupted_preparation_leaves_nothing_that_looks_complete(
  tmp_path, monkeypatch
):
  root = fill(tmp_path / "root", tree("a.png", "b.png"))

  def fail(self, image):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(folder_builder.FolderBuilder, "_encode", fail)
    assert "No space left" in load_error(root)
  assert not list(tmp_path.rglob("*.tfrecord*"))
  assert not prepared(tmp_path / "data")
  assert len(stored(load(root))) == 2


def _load_and_die(root):
  def die(self, image):
    if image.file.path == "b.png":
      os._exit(9)
    return b"x"

  folder_builder.FolderBuilder._encode = die
  load(root)


@pytest.mark.slow
def test_killed_preparation_leaves_nothing_that_looks_complete(tmp_path):
  root = fill(tmp_path / "root", tree("a.png", "b.png"))
  process = multiprocessing.get_context("spawn").Process(
    target=_load_and_die, args=(root,)
  )
  process.start()
  process.join()
  assert process.exitcode == 9
  assert list(tmp_path.glob("data/image_folder/*/*"))  # It had begun.
  assert set(stored(load(root))) == {"a.png", "b.png"}


def _count(root):
  return len(stored(load(root)))


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(tmp_path):
  root = fill(tmp_path / "root", tree(*(f"{i}.png" for i in range(200))))
  with multiprocessing.get_context("spawn").Pool(2) as pool:
    assert pool.map(_count, [root] * 2, chunksize=1) == [200, 200]


def test_incomplete_folder_is_named(tmp_path):
  root = fill(tmp_path / "root", tree("a.png"))
  path = pathlib.Path(load(root).builder.data_dir)
  for name in ("metadata.json", "dataset_info.json"):
    (path / name).unlink()
    assert f"{path} is incomplete" in load_error(root)
