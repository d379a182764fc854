"""Labels and splits of images from a CSV file."""

import pytest
import tensorflow_datasets as tfds

from byol_jax.data import loading
from tests.image_folders import (
  fill,
  labels_of,
  load,
  load_error,
  options,
  prepared,
  read,
  split_names,
  stored,
  tree,
)

IMAGES = ("1.png", "x/2.png", "x/3.png", "4.png")


@pytest.fixture
def root(tmp_path):
  return fill(tmp_path / "root", tree(*IMAGES))


def write(root, text, encoding="utf-8"):
  path = root.parent / "labels.csv"
  path.write_bytes(text.encode(encoding))
  return str(path)


@pytest.mark.parametrize(
  "text",
  [
    "file,label\n1.png,cat\nx/2.png,dog\nx/3.png,cat\n4.png,dog\n",
    "Label;Filename\r\ncat;1.png\r\ndog;x\\2.png\r\ncat;./x/3.png\r\ndog;4.png",
    "image_id\tclass\n1\tcat\nx/2\tdog\n\nx/3\t cat \n4\tdog\n",
    '"id","category","note"\n1,cat,"a\nb"\nx/2,dog,\nx/3,cat\n"4.png",dog,""\n',
  ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_usual_forms_of_a_label_file_are_read(root, text, encoding):
  folder = load(root, labels=write(root, text, encoding))
  labels = dict(zip(IMAGES, ("cat", "dog", "cat", "dog"), strict=True))
  assert labels_of(folder) == labels
  assert folder.builder.info.features["label"].names == ["cat", "dog"]
  assert folder.notes == []


def test_other_columns_are_taken_in_order_and_told(root):
  rows = "1.png,a\nx/2.png,b\nx/3.png,b\n4.png,a\n"
  folder = load(root, labels=write(root, "Picture,Finding,x\n" + rows))
  assert labels_of(folder)["x/2.png"] == "b"
  (note,) = folder.notes
  assert "column 'Picture' is taken for files and 'Finding' for labels" in note
  message = load_error(root, labels=write(root, rows))
  assert "begins with a row for 1.png" in message


def test_absolute_paths_are_understood(root):
  rows = "\n".join(f"{root / name},{i % 2}" for i, name in enumerate(IMAGES))
  folder = load(root, labels=write(root, "path,label\n" + rows))
  assert labels_of(folder)["x/2.png"] == "1"


def test_images_without_a_label_train_the_network_only(root):
  path = write(root, "file,label\n1.png,a\nx/2.png,b\n4.png,\n")
  source = loading.load_folder(str(root), options(root, labels=path))
  assert source.dataset.pretrain == "train+train_unlabelled"
  assert loading.num_examples(source, source.dataset.pretrain) == 4
  assert loading.num_examples(source, source.dataset.train) == 2
  assert source.num_classes == 2
  assert source.dataset.statistics.mean[0] == round(1.5 / 255, 4)  # Of all.
  assert source.notes == [
    "2 images of train have no label; they train the network only."
  ]
  folder = load(root, labels=path)
  assert {e["label"] for e in read(folder, "train_unlabelled")} == {-1}


def test_several_classes_of_an_image_make_the_data_set_multi_label(root):
  text = "file,label\n1.png,a|c\nx/2.png,b\nx/2.png, a\nx/3.png,\n"
  path = write(root, text)
  source = loading.load_folder(str(root), options(root, labels=path))
  assert source.is_multi_label
  assert source.dataset.metric == "map11"
  assert source.num_classes == 3
  feature = source.builder.info.features["label"]
  assert isinstance(feature, tfds.features.Sequence)
  folder = load(root, labels=path)
  labels = {e["file"].decode(): set(e["label"]) for e in read(folder)}
  assert labels == {"1.png": {0, 2}, "x/2.png": {0, 1}, "x/3.png": set()}
  (unlabelled,) = read(folder, "train_unlabelled")
  assert list(unlabelled["label"]) == []
  assert "2 images have several classes." in folder.notes
  held_out = load(root, labels=path, test_share=0.3)
  assert len(stored(held_out, "test")) == 1


def test_a_column_can_name_the_splits(root):
  text = (
    "file,label,split\n1.png,a,train\nx/2.png,b,\nx/3.png,b,Val\n4.png,,test"
  )
  folder = load(root, labels=write(root, text), test_share=0.5)
  assert folder.notes[0].startswith("The splits are those of the column split")
  assert set(stored(folder)) == {"1.png", "x/2.png"}
  assert set(stored(folder, "validation")) == {"x/3.png"}
  assert set(stored(folder, "test_unlabelled")) == {"4.png"}
  full = load(root, labels=write(root, text.replace("4.png,", "4.png,a")))
  assert split_names(full) == {"train", "validation", "test"}


def test_folders_are_the_splits_of_a_label_file_without_any(tmp_path):
  root = fill(
    tmp_path / "root",
    tree(*(f"{s}/{i}.png" for s in ("Train", "val") for i in range(2))),
  )
  text = "file,label\nTrain/0,a\nTrain/1,b\nval/0,b\n"
  folder = load(root, labels=write(root, text), test_share=0.5)
  assert labels_of(folder, "validation") == {"val/0.png": "b"}
  assert folder.notes == [
    "Splits: Train/ trains the network, val/ tests.",
    "1 images of validation have no label; they are read by --mode=embed only.",
  ]


def test_rows_without_a_file_are_counted(root):
  rows = "gone.png,a\n../up.png,b\n1.png,a\nx/2.png,b\nx/3.png,a\n4.png,a\n"
  folder = load(root, labels=write(root, "file,label\n" + rows))
  (note,) = folder.notes
  assert note.startswith("Note: 2 rows of ")
  assert note.endswith(f"name no usable image in {root}, such as gone.png.")


def test_a_label_file_below_the_root_is_no_broken_image(root):
  path = root / "labels.csv"
  path.write_text("file,label\n1,a\nx/2,b\n")
  assert load(root, labels=str(path)).broken == []


def test_annotations_beside_images_are_not_labelled(tmp_path):
  files = tree("1.png", "2.png") | {"1.txt": b"0 0 0", "2.xml": b"<a/>"}
  root = fill(tmp_path / "root", files)
  path = write(root, "file,label\n1,a\n2,b\n")
  folder = load(root, labels=path, max_broken=0.5)
  assert labels_of(folder) == {"1.png": "a", "2.png": "b"}


def test_paths_may_lead_through_links(tmp_path):
  root = fill(tmp_path / "root", tree("1.png", "2.png"))
  (tmp_path / "link").symlink_to(root)
  path = root / "labels.csv"
  path.write_text(f"file,label\n{tmp_path}/link/1.png,a\n{root}/2.png,b\n")
  folder = load(tmp_path / "link", labels=str(path))
  assert labels_of(folder) == {"1.png": "a", "2.png": "b"}
  assert folder.broken == []


def test_folders_mean_nothing_beside_a_column_of_splits(tmp_path):
  names = ("train/1.png", "test/2.png", "more/3.png")
  root = fill(tmp_path / "root", tree(*names))
  rows = "train/1,a,test\ntest/2,b,train\nmore/3,a,train\n"
  folder = load(root, labels=write(root, "file,label,split\n" + rows))
  assert set(stored(folder)) == {"test/2.png", "more/3.png"}
  assert set(stored(folder, "test")) == {"train/1.png"}


def test_changed_labels_are_prepared_anew(root):
  for label in "bcb":
    load(root, labels=write(root, f"file,label\n1,a\nx/2,{label}\n"))
  assert len(prepared(root.parent / "data")) == 2


@pytest.mark.parametrize(
  ("content", "problem"),
  [
    (b"", "begins with ''"),
    (
      b"file\n1.png\n",
      "begins with 'file', which is not the names of a column",
    ),
    (b"file,split\n1.png,val\n", "begins with 'file,split', which is not"),
    (b"file,label\n" + b"x" * 9999 + b",a", "such as " + "x" * 80 + ";"),
    (b"file,label\n", "none of the 0 rows"),
    (b"file,label\ngone\nnever,b", "none of the 2 rows"),
    (b"file,label\n1.png,\n", "labels no image of the split train"),
    (b"file,label,split\n1,a,test\n", "labels no image of the split train"),
    (b"file,label,split\n1,a,fold3\n", "line 2: split 'fold3' is unknown"),
    (b"file,label,split\n1,a,val\n1,b,test", "line 3: 1 is in split test here"),
    (b"file,label\n1,\xff\n", "cannot be read as CSV in UTF-8"),
    (b'file,label\n1,"' + b"a" * 200_000, "cannot be read as CSV"),
  ],
)
def test_label_files_that_cannot_be_used_are_refused(root, content, problem):
  path = root.parent / "labels.csv"
  path.write_bytes(content)
  message = load_error(root, labels=str(path))
  assert problem in message
  assert str(path) in message
  assert not prepared(root.parent / "data")


def test_class_names_stay_one_line(root):
  text = 'file,label\n1,"a\nb"\nx/2,  c\nx/3,c\n4,"a\nb"\n'
  folder = load(root, labels=write(root, text))
  assert folder.builder.info.features["label"].names == ["a\\nb", "c"]
