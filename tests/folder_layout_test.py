"""Which folders are splits and which are classes."""

import pytest

from byol_jax import errors
from byol_jax.data import folder_layout, loading
from byol_jax.data.folder_scan import File
from tests.image_folders import (
  fill,
  labels_of,
  load,
  options,
  split_names,
  stored,
  tree,
)


def arrange(*paths):
  files = [File(path, 1, 1) for path in sorted(paths)]
  return folder_layout.arrange("/root", files, has_classes=True)


def placed(layout):
  return {file.path: (file.split, file.label) for file in layout.files}


@pytest.mark.parametrize(
  ("train", "test"),
  [("Train", "TEST"), ("training", "testing"), ("TRAIN", "eval")],
)
def test_splits_have_any_usual_spelling(train, test):
  layout = arrange(f"{train}/a/1", f"{test}/a/2", f"{test}/b/2")
  assert placed(layout) == {
    f"{train}/a/1": ("train", "a"),
    f"{test}/a/2": ("test", "a"),
    f"{test}/b/2": ("test", "b"),
  }
  assert layout.notes == []


@pytest.mark.parametrize("name", ["VAL", "valid", "Validation", "dev"])
def test_validation_has_any_usual_spelling(name):
  layout = arrange("train/a/1", f"{name}/a/2")
  assert placed(layout)[f"{name}/a/2"] == ("validation", "a")


def test_splits_may_lie_further_down():
  layout = arrange("data/set/Train/a/1", "data/set/val/b/2", "README")
  assert placed(layout) == {
    "data/set/Train/a/1": ("train", "a"),
    "data/set/val/b/2": ("validation", "b"),
  }
  assert layout.folders == {
    "train": "data/set/Train",
    "validation": "data/set/val",
  }
  (note,) = layout.notes
  assert note.startswith("Note: 1 files outside of the folders of splits")
  assert "README" in note


@pytest.mark.parametrize("folder", ["train", "test", "animals"])
def test_classes_may_lie_in_a_single_folder(folder):
  layout = arrange(f"{folder}/cat/1", f"{folder}/dog/x/2")
  assert placed(layout) == {
    f"{folder}/cat/1": ("train", "cat"),
    f"{folder}/dog/x/2": ("train", "dog"),
  }
  assert layout.notes == [f"The classes are the folders in {folder}/."]


def test_a_single_folder_without_folders_is_a_class():
  layout = arrange("train/1", "train/2")
  assert set(placed(layout).values()) == {("train", "train")}


@pytest.mark.parametrize(
  "names", [("a", "b", "test"), ("cat", "train"), ("Val", "x")]
)
def test_a_class_with_the_name_of_a_split_is_told(names):
  layout = arrange(*(f"{name}/1" for name in names))
  assert {label for _, label in placed(layout).values()} == set(names)
  (note,) = layout.notes
  (taken,) = (name for name in names if folder_layout.split_of(name))
  assert note.startswith(
    f"Note: a folder that is called {taken} counts as a class"
  )


@pytest.mark.parametrize(
  ("names", "problem"),
  [
    (("train", "training"), "training, which mean the same split, train"),
    (("Train", "train", "test"), "Train and train, which mean the same"),
    (("train", "val", "valid"), "val and valid, which mean the same"),
    (("test", "val"), "test and val, but none to train on"),
  ],
)
def test_ambiguous_folders_are_refused(names, problem):
  with pytest.raises(errors.UserError, match=problem) as info:
    arrange(*(f"{name}/a/1" for name in names))
  assert "/root has folders" in str(info.value)


@pytest.mark.parametrize(
  ("test", "split"), [("test", "test"), ("val", "validation")]
)
def test_folders_can_be_the_splits(tmp_path, test, split):
  train = ("train/a/1.png", "train/b/x/2.png")
  held_out = (f"{test}/b/1.png", f"{test}/c/2.png")
  others = ("extra/a/1.png", "outside.png")
  folder = load(
    fill(tmp_path / "root", tree(*train, *held_out, *others)), test_share=0.9
  )
  assert folder.notes[0].startswith(
    "Note: 2 files outside of the folders of splits"
  )
  assert folder.builder.info.features["label"].names == ["a", "b", "c"]
  assert set(stored(folder, "train")) == set(train)
  assert labels_of(folder, split) == dict(zip(held_out, "bc", strict=True))


def test_validation_is_a_split_of_its_own_where_there_is_a_test_split(tmp_path):
  names = [f"{s}/{c}/1.png" for s in ("train", "val", "Test") for c in "ab"]
  root = fill(tmp_path / "root", tree(*names, "train/a/2.png"))
  folder = load(root, test_share=0.5)
  assert split_names(folder) == {"train", "validation", "test"}
  assert labels_of(folder, "validation") == {
    "val/a/1.png": "a",
    "val/b/1.png": "b",
  }
  line = (
    "Splits: train/ trains the network, val/ chooses hyper-parameters, Test/"
    " tests."
  )
  assert folder.notes == [line]
  assert load(root, test_share=0.5).notes == [line]  # Not only the first time.


def test_validation_tests_where_there_is_no_other_split(tmp_path):
  names = [f"{s}/{c}/1.png" for s in ("train", "val") for c in "ab"]
  root = fill(tmp_path / "root", tree(*names))
  dataset = loading.load_folder(str(root), options(root)).dataset
  assert (dataset.validation, dataset.test) == ("", "validation")
  folder = load(root, test_share=0.5)
  assert set(stored(folder, "validation")) == {"val/a/1.png", "val/b/1.png"}
  assert folder.notes == ["Splits: train/ trains the network, val/ tests."]


def test_test_images_without_a_class_are_kept_apart(tmp_path):
  names = [f"train/{c}/{i}.png" for c in "ab" for i in range(4)]
  root = fill(tmp_path / "root", tree(*names, "test/1.png"))
  folder = load(root, test_share=0.25)
  assert set(stored(folder, "test_unlabelled")) == {"test/1.png"}
  assert len(stored(folder, "test")) == 2  # Held out.
  assert folder.notes == [
    "Splits: train/ trains the network, test/ has no labels.",
    "2 of 8 labelled images are held out for testing (data.test_share=0.25).",
    "1 images of test have no label; they are read by --mode=embed only.",
  ]


def test_splits_remain_without_labels(tmp_path):
  names = ("train/a/1.png", "train/b/1.png", "test/1.png")
  root = fill(tmp_path / "root", tree(*names))
  folder = load(root, labels="none", test_share=0.5)
  assert split_names(folder) == {"train", "test"}
  (note,) = folder.notes
  assert note.endswith(
    "test/ is read by evaluations that need no labels and by --mode=embed."
  )


def test_folders_without_an_image_are_no_splits_or_classes(tmp_path):
  files = tree(*(f"train/{c}/{i}.png" for c in "ab" for i in range(2)))
  files |= {"test/notes.txt": b"x", "train/labels.csv": b"x"}
  root = fill(tmp_path / "root", files)
  for _ in range(2):  # Not only the first time.
    folder = load(root, test_share=0.5, max_broken=0.5)
    assert labels_of(folder).keys() < files.keys()
    assert len(stored(folder, "test")) == 2
    assert folder.notes == [
      "The classes are the folders in train/.",
      "2 of 4 labelled images are held out for testing (data.test_share=0.5).",
    ]


@pytest.mark.parametrize(
  ("names", "reason"),
  [
    (("a/1.png", "b/1.png", "x.png"), "1 images are outside of the folders"),
    (("train/a/1.png", "train/x.png", "val/a/1.png"), "such as train/x.png."),
    (("dev/1.png", "train/a/2.png", "train/x.png"), "such as train/x.png."),
    (("a/1.png", "a/2.png"), "all images have the same"),
  ],
)
def test_missing_labels_are_explained(tmp_path, names, reason):
  folder = load(fill(tmp_path / "root", tree(*names)))
  assert "label" not in folder.builder.info.features
  (note,) = (
    x for x in folder.notes if x.startswith("Note: there are no labels")
  )
  assert reason in note


def test_a_flat_folder_needs_no_note(tmp_path):
  assert load(fill(tmp_path / "root", tree("1.png"))).notes == []
