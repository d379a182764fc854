"""Folders of images: all that is stored, all that is left out, and mistakes."""

import hashlib
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn import datasets as sklearn_datasets

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import (
  folder_builder,
  folder_inspect,
  image_folder,
  thread_map,
)

PHOTOS = [
  PIL.Image.fromarray(photo).resize((128, 85))
  for photo in sklearn_datasets.load_sample_images().images
]
DEEP = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 32  # 16 bit.


def encoded(image, file_format, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, file_format, **options)
  return file.getvalue()


def photo(i=0, file_format="JPEG", mode="RGB", **options) -> bytes:
  return encoded(PHOTOS[i].convert(mode), file_format, **options)


def zipped(text: str) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("a.txt", text)
  return file.getvalue()


GOOD = {
  "photo.jpg": photo(0),
  "other photo.jpeg": photo(1),
  "progressive.jpg": photo(0, progressive=True),
  "grey.jpg": photo(0, mode="L"),
  "cmyk.jpg": photo(0, mode="CMYK"),
  "grey.png": photo(0, "PNG", "L"),
  "rgba.png": photo(0, "PNG", "RGBA"),
  "palette.png": photo(0, "PNG", "P"),
  "one bit.png": photo(0, "PNG", "1"),
  "16 bit.png": encoded(PIL.Image.fromarray(DEEP), "PNG"),
  "tiny.png": encoded(PIL.Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"),
  "panorama.jpg": encoded(PHOTOS[0].resize((2000, 10)), "JPEG"),
  "still.gif": photo(0, "GIF"),
  "moving.gif": photo(
    0, "GIF", save_all=True, append_images=[PHOTOS[1], PHOTOS[0].rotate(90)]
  ),
  "photo.webp": photo(1, "WEBP"),
  "UPPER.JPG": photo(1, quality=50),
  "png.jpg": photo(1, "PNG"),
  "no extension": photo(1, quality=60),
  "deep/er/äöü 写真 🐈.jpg": photo(1, quality=70),
}
# TensorFlow cannot read these, or reads them wrongly.
REENCODED = {
  "24 bit.bmp": photo(0, "BMP"),
  "palette.bmp": photo(0, "BMP", "P"),
  "one bit.bmp": photo(0, "BMP", "1"),
  "photo.tif": photo(0, "TIFF"),
  "grey.pgm": photo(0, "PPM", "L"),
  "without end.png": photo(1, "PNG")[:-12],
}
BROKEN = {
  "empty.jpg": (b"", "empty file"),
  "text.jpg": (b"Not found\n" * 9, "not an image"),
  "archive.zip": (zipped("text"), "not an image"),
  "random.png": (np.random.RandomState(0).bytes(999), "not an image"),
  "half.jpg": (photo()[:2000], "truncated or corrupt: image file is trunc"),
  "half.png": (photo(0, "PNG")[:9999], "truncated or corrupt: image file is"),
  "head.jpg": (photo()[:20], "truncated or corrupt: its header makes no"),
  "garbage.jpg": (photo()[:640] + bytes(999), "truncated or corrupt: "),
  "float.tif": (
    encoded(PIL.Image.fromarray(DEEP.astype(np.float32)), "TIFF"),
    "truncated or corrupt: nothing says what is white in mode F",
  ),
}


def fill(root: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
  for name, data in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return root


def load(
  root, *, data_dir=None, labels="folders", test_share=0.0, max_broken=0.0
) -> image_folder.ImageFolder:
  return image_folder.load(
    str(root),
    schema.DataConfig(
      data_dir=str(data_dir or root.parent / "data"),
      labels=labels,
      test_share=test_share,
      max_broken=max_broken,
    ),
  )


def load_error(*args, **options) -> str:
  with pytest.raises(errors.UserError) as info:
    load(*args, **options)
  message = str(info.value)
  assert "\n" not in message
  return message


def read(folder, split="train") -> list[dict]:
  dataset = folder.builder.as_dataset(
    split=split, decoders={"image": tfds.decode.SkipDecoding()}
  )
  return list(tfds.as_numpy(dataset))


def stored(folder, split="train") -> dict[str, bytes]:
  examples = read(folder, split)
  images = {example["file"].decode(): example["image"] for example in examples}
  assert len(images) == len(examples)  # Each file once.
  return images


def labels_of(folder, split="train") -> dict[str, str]:
  names = folder.builder.info.features["label"].names
  return {
    example["file"].decode(): names[example["label"]]
    for example in read(folder, split)
  }


def decode(data: bytes) -> np.ndarray:
  return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def split_names(folder) -> set[str]:
  return set(folder.builder.info.splits)


def prepared(data_dir) -> list[pathlib.Path]:
  """What a later opening could take for a data set."""
  return sorted(pathlib.Path(data_dir).glob("image_folder/*/[0-9]*"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  broken = {name: data for name, (data, _) in BROKEN.items()}
  root = tmp_path_factory.mktemp("mixed") / "all kinds"
  return load(fill(root, GOOD | REENCODED | broken), max_broken=0.5)


def test_all_good_files_are_stored_once(mixed):
  assert set(stored(mixed)) == set(GOOD) | set(REENCODED)
  assert split_names(mixed) == {"train"}
  assert mixed.builder.info.file_format == tfds.core.FileFormat.TFRECORD


def test_what_tensorflow_reads_is_stored_as_it_is(mixed):
  images = stored(mixed)
  for name, data in GOOD.items():
    assert images[name] == data, name
    assert decode(data).ndim == 3


@pytest.mark.parametrize("name", REENCODED)
def test_what_tensorflow_misreads_is_stored_as_png(mixed, name):
  data = stored(mixed)[name]
  assert data.startswith(b"\x89PNG")
  with PIL.Image.open(io.BytesIO(REENCODED[name])) as image:
    np.testing.assert_array_equal(decode(data), image.convert("RGB"))


def test_16_bit_tiff_is_scaled_and_not_clipped(tmp_path):
  tiff = encoded(PIL.Image.fromarray(DEEP), "TIFF")
  folder = load(fill(tmp_path / "root", {"a.tif": tiff}))
  pixels = decode(stored(folder)["a.tif"])
  np.testing.assert_array_equal(pixels[..., 0], DEEP // 256)


def test_broken_files_are_listed_with_reasons(mixed):
  assert [name for name, _ in mixed.broken] == sorted(BROKEN)
  for name, reason in mixed.broken:
    assert reason.startswith(BROKEN[name][1]), (name, reason)
    assert len(reason) < 110
    assert "\n" not in reason
    assert "/" not in reason
    assert "0x" not in reason


def test_what_is_no_image_is_not_read_to_its_end(tmp_path):
  root = fill(
    tmp_path / "root", {"a.jpg": photo(), "film.avi": b"RIFF    AVI "}
  )
  os.truncate(root / "film.avi", 2**40)  # A hole, which takes no space.
  folder = load(root, max_broken=0.5)
  assert folder.broken == [("film.avi", "not an image")]


def test_images_that_would_fill_the_memory_are_left_out(tmp_path, monkeypatch):
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 9999)
  files = {
    "good.jpg": photo(),  # TensorFlow reads it, so there is nothing to fear.
    "warning.bmp": photo(0, "BMP"),
    "error.bmp": encoded(PHOTOS[0].resize((200, 200)), "BMP"),
  }
  folder = load(fill(tmp_path / "root", files), max_broken=0.9)
  reasons = dict(folder.broken)
  assert set(reasons) == {"warning.bmp", "error.bmp"}
  assert all(reason.startswith("too large: ") for reason in reasons.values())


def test_hidden_names_are_passed_over(tmp_path):
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
  assert set(reasons) == {"a/nowhere.jpg", "a/self"}
  assert reasons["a/nowhere.jpg"] == "cannot be read: No such file or directory"


def test_unreadable_files_and_folders_are_listed(tmp_path, monkeypatch):
  root = fill(
    tmp_path / "root", {"a.jpg": photo(), "b.jpg": b"", "sub/c.jpg": photo()}
  )
  deny, listdir = PermissionError(13, "Permission denied"), os.listdir

  def deny_b(path, *args):
    if path.endswith("b.jpg"):
      raise deny
    return open(path, *args)

  def deny_sub(path):
    if path.endswith("sub"):
      raise deny
    return listdir(path)

  monkeypatch.setattr(folder_inspect, "open", deny_b, raising=False)
  monkeypatch.setattr(os, "listdir", deny_sub)
  broken = dict(load(root, max_broken=0.9).broken)
  assert broken["b.jpg"] == "cannot be read: Permission denied"
  assert broken["sub"].startswith("cannot be read: ")


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


def tree(*names) -> dict[str, bytes]:
  """Small images, each of its own colour."""
  return {
    name: encoded(PIL.Image.new("RGB", (8, 8), (i, 0, 0)), "PNG")
    for i, name in enumerate(names)
  }


def test_outermost_folders_are_the_classes(tmp_path):
  names = ("dogs/b.png", "big cats/lion/a.png", "dogs/x/cats/c.png", "Ö/d.png")
  folder = load(
    fill(tmp_path / "root", tree(*names) | {"README": b"Pets."}), max_broken=0.2
  )
  assert folder.builder.info.features["label"].names == [
    "big cats",
    "dogs",
    "Ö",
  ]
  assert labels_of(folder) == {name: name.split("/")[0] for name in names}
  assert folder.broken == [("README", "not an image")]


@pytest.mark.parametrize(
  "names",
  [
    ("a.png", "b.png"),
    ("one/a.png", "one/b.png"),
    ("one/a.png", "two/b.png", "outside.png"),
  ],
)
def test_without_classes_there_are_no_labels(tmp_path, names):
  folder = load(fill(tmp_path / "root", tree(*names)), test_share=0.5)
  assert set(folder.builder.info.features) == {"image", "file"}
  assert set(stored(folder)) == set(names)
  assert split_names(folder) == {"train"}


def test_labels_can_be_declined(tmp_path):
  root = fill(tmp_path / "root", tree("a/1.png", "a/2.png", "b/1.png"))
  folder = load(root, labels="none", test_share=0.5)
  assert set(folder.builder.info.features) == {"image", "file"}
  assert split_names(folder) == {"train"}
  assert "label" in load(root, test_share=0.5).builder.info.features


def test_folder_of_broken_files_is_no_class(tmp_path):
  files = tree("a/1.png", "b/2.png") | {"c/3.png": b"", "4.png": b""}
  folder = load(fill(tmp_path / "root", files), max_broken=0.5)
  assert folder.builder.info.features["label"].names == ["a", "b"]


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


def test_of_several_folders_for_testing_the_first_known_is_taken(tmp_path):
  root = fill(tmp_path / "root", tree("train/1.png", "val/2.png", "test/3.png"))
  folder = load(root)
  assert set(stored(folder, "test")) == {"test/3.png"}
  assert "label" not in folder.builder.info.features


def test_train_alone_is_a_folder_as_any_other(tmp_path):
  root = fill(tmp_path / "root", tree("train/1.png", "car/2.png"))
  assert load(root).builder.info.features["label"].names == ["car", "train"]


def test_share_of_each_class_is_held_out_by_hash(tmp_path):
  sizes = {"a": 10, "b": 3, "c": 1}
  names = [f"{c}/{i}.png" for c, size in sizes.items() for i in range(size)]
  root = fill(tmp_path / "root", tree(*names) | {"a/broken.png": b""})
  folder = load(root, test_share=0.3, max_broken=0.1)

  def smallest(class_name, count):
    members = [name for name in names if name.startswith(class_name)]
    members.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(members[:count])

  held_out = smallest("a", 3) | smallest("b", 1)
  assert set(stored(folder, "test")) == held_out
  assert set(stored(folder, "train")) == set(names) - held_out
  again = load(root, data_dir=tmp_path / "2", test_share=0.3, max_broken=0.1)
  assert [e["file"] for e in read(folder)] == [e["file"] for e in read(again)]


def test_statistics_are_those_of_the_training_images(tmp_path):
  rng = np.random.RandomState(0)
  sizes = [(8, 12), (7, 40), (33, 50), (1, 1), (9, 8)]
  images = [rng.randint(0, 128, (*size, 3), np.uint8) for size in sizes]
  files = {
    f"train/{i}.png": encoded(PIL.Image.fromarray(image), "PNG")
    for i, image in enumerate(images)
  }
  files["test/a.png"] = encoded(PIL.Image.new("RGB", (99, 99), "white"), "PNG")
  folder = load(fill(tmp_path / "root", files))
  pixels = [x if min(x.shape[:2]) < 8 else x[::4, ::4] for x in images]
  pixels = [x.reshape(-1, 3) / 255 for x in pixels]
  mean = np.mean([x.mean(axis=0) for x in pixels], axis=0)
  square = np.mean([(x**2).mean(axis=0) for x in pixels], axis=0)
  np.testing.assert_allclose(folder.statistics.mean, mean, atol=6e-5)
  np.testing.assert_allclose(
    folder.statistics.std, np.sqrt(square - mean**2), atol=6e-5
  )
  assert folder.statistics.side == 8  # Of 1, 7, 8, 8, 33, 99.
  assert all(
    round(x, 4) == x for x in folder.statistics.mean + folder.statistics.std
  )


def test_every_fourth_pixel_of_a_photo_tells_enough(tmp_path):
  folder = load(fill(tmp_path / "root", {"a.png": photo(0, "PNG")}))
  pixels = np.asarray(PHOTOS[0]) / 255
  np.testing.assert_allclose(
    folder.statistics.mean, pixels.mean(axis=(0, 1)), atol=0.02
  )
  np.testing.assert_allclose(
    folder.statistics.std, pixels.std(axis=(0, 1)), atol=0.02
  )


def test_deviation_is_never_zero(tmp_path):
  black = encoded(PIL.Image.new("RGB", (9, 9)), "PNG")
  folder = load(fill(tmp_path / "root", {"a.png": black}))
  assert (folder.statistics.mean, folder.statistics.std) == (
    (0, 0, 0),
    (1e-3, 1e-3, 1e-3),
  )


def test_folder_is_prepared_once(tmp_path, monkeypatch):
  root = fill(tmp_path / "root", tree("a/1.png", "b/2.png") | {"c.png": b""})
  first = load(root, max_broken=0.5)
  monkeypatch.setattr(folder_inspect, "inspect", None)
  second = load(root, max_broken=0.5)
  assert second[1:] == first[1:]
  assert stored(second) == stored(first)
  assert labels_of(second) == labels_of(first)


def test_data_set_lies_where_it_was_promised(tmp_path):
  root = fill(tmp_path / "My cäts!", tree("a.png"))
  path = pathlib.Path(load(root).builder.data_dir)
  assert path.relative_to(tmp_path / "data").match("image_folder/*/1.0.0")
  name, _, digits = path.parent.name.rpartition("-")
  assert name == "My_c_ts_"
  assert len(digits) == 8
  int(digits, 16)
  assert json.loads((path / "metadata.json").read_text())["side"] == 8


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


@pytest.mark.parametrize("data_dir", [".", "data"])
def test_records_below_the_root_are_not_taken_for_its_files(tmp_path, data_dir):
  root = fill(tmp_path / "root", tree("1.png", "2.png"))
  for _ in range(2):
    assert load(root, data_dir=root / data_dir).broken == []
  assert len(prepared(root / data_dir)) == 1


def test_home_is_understood(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  fill(tmp_path / "root", tree("1.png"))
  folder = load("~/root", data_dir=tmp_path / "data")
  assert set(stored(folder)) == {"1.png"}


def test_nothing_is_said_where_nobody_looks(tmp_path, capfd):
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


def test_few_items_are_made_ahead_and_order_is_kept():
  started = []
  results = thread_map.thread_map(
    lambda i: started.append(i) or -i, range(1000), ""
  )
  assert list(itertools.islice(results, 3)) == [(0, 0), (1, -1), (2, -2)]
  assert len(started) <= 4 * os.cpu_count() + 3
  results.close()


def test_root_must_be_a_folder(tmp_path):
  file = tmp_path / "file"
  file.touch()
  for root in (file, tmp_path / "gone"):
    assert f"{root} is not a folder" in load_error(root)
  assert not (tmp_path / "data").exists()


def test_unknown_labels_list_the_known_ones(tmp_path):
  assert "one of: folders, none" in load_error(tmp_path, labels="csv")


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


def test_holding_out_everything_is_refused(tmp_path):
  root = fill(tmp_path / "root", tree("a/1.png", "b/1.png"))
  assert "data.test_share=0.9" in load_error(root, test_share=0.9)


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
    assert f"{path} is incomplete; delete it" in load_error(root)
