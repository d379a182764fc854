"""The classes of a folder, and the images that are held out for testing."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byol_jax.data import folder_splits
from byol_jax.data.folder_inspect import Image
from byol_jax.data.folder_scan import File
from tests.image_folders import (
  fill,
  labels_of,
  load,
  read,
  split_names,
  stored,
  tree,
)


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


def test_fraction_of_each_class_is_held_out_by_hash(tmp_path):
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


@pytest.mark.parametrize(("share", "held_out"), [(0.1, 30), (0.9, 90), (0, 0)])
def test_small_classes_are_tested_and_trained_on(tmp_path, share, held_out):
  names = [f"{c}/{i}.png" for c in range(30) for i in range(4)]
  folder = load(fill(tmp_path / "root", tree(*names)), test_share=share)
  if share:
    assert len(set(labels_of(folder, "test").values())) == 30
    assert len(set(labels_of(folder).values())) == 30
    assert len(stored(folder, "test")) == held_out
    assert folder.notes == [
      f"{held_out} of 120 labelled images are held out for testing"
      f" (data.test_share={share})."
    ]
  else:
    assert split_names(folder) == {"train"}
    assert folder.notes == []


def test_classes_of_one_image_are_told(tmp_path):
  folder = load(
    fill(tmp_path / "root", tree("a/1.png", "b/1.png")), test_share=0.9
  )
  assert split_names(folder) == {"train"}
  (note,) = folder.notes
  assert note.startswith("Note: no image is held out for testing")


@pytest.mark.parametrize(
  ("names", "ordered"),
  [
    (["10", "9", "0", "09"], ["0", "09", "9", "10"]),
    (["10", "9", "x"], ["10", "9", "x"]),
    (["1.5", "10", "9"], ["1.5", "10", "9"]),
    (["\u0661", "10", "9"], ["10", "9", "\u0661"]),
    (["9" * 9999, "10", "9"], ["10", "9", "9" * 9999]),
  ],
)
def test_classes_are_numbers_if_all_names_are(names, ordered):
  files = [File(name, 1, 1, "train", name) for name in names]
  assert folder_splits.class_names(files) == ordered


CLASSES = st.dictionaries(
  st.sampled_from("abc"), st.sets(st.integers(0, 99), min_size=1), min_size=1
)
# Two decimals, so that rounding errors of products do not matter.
FRACTIONS = st.integers(0, 99).map(lambda percent: percent / 100)


def hold_out(classes: dict[str, set[int]], fraction: float) -> dict:
  """The paths in each split."""
  images = [
    Image(
      File(f"{label}/{i}.png", 1, 1, "train", label),
      True,
      8,
      np.zeros((2, 3)),
      b"",
    )
    for label, numbers in classes.items()
    for i in numbers
  ]
  splits = folder_splits.split_images(images, fraction)
  return {
    name: [image.file.path for image in splits.get(name, [])]
    for name in ("train", "test")
  }


@given(CLASSES, FRACTIONS)
def test_each_class_loses_the_rounded_fraction_of_its_images(classes, fraction):
  test = hold_out(classes, fraction)["test"]
  for label, numbers in classes.items():
    held_out = sum(path.startswith(label) for path in test)
    if not fraction or len(numbers) == 1:
      assert held_out == 0
    else:
      assert 1 <= held_out < len(numbers)
      assert abs(held_out - fraction * len(numbers)) <= 1
      if 1 <= round(fraction * len(numbers)) < len(numbers):
        assert held_out == round(fraction * len(numbers))


@given(CLASSES, FRACTIONS)
def test_each_image_is_in_exactly_one_split(classes, fraction):
  splits = hold_out(classes, fraction)
  paths = [f"{name}/{i}.png" for name, ids in classes.items() for i in ids]
  assert sorted(splits["train"] + splits["test"]) == sorted(paths)


@given(CLASSES, FRACTIONS, st.data())
def test_new_image_moves_at_most_one_other_of_its_class(
  classes, fraction, data
):
  label = data.draw(st.sampled_from(sorted(classes)))
  before = set(hold_out(classes, fraction)["test"])
  after = set(
    hold_out(classes | {label: classes[label] | {100}}, fraction)["test"]
  )
  moved = (before ^ after) - {f"{label}/100.png"}
  assert len(moved) <= 1
  assert all(path.startswith(label) for path in moved)
