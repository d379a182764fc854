"""Opening data sets by name: what users prepared, and mistakes."""

import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.data import loading, registry
from byol_jax.data import source as source_lib
from tests.tfds_data import load_error, read, store, store_images


@pytest.mark.parametrize("version", ["3.0.1", "1.2.3", "9.0.0"])
def test_data_that_a_user_stored_is_read_in_any_version(tmp_path, version):
  store(tmp_path, version=version)
  source = loading.load("fashion_mnist", str(tmp_path))
  assert source.num_classes == 7
  assert loading.num_examples(source, "train") == 6
  images, labels = read(source, "train")
  np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_data_set_with_a_configuration_is_found(tmp_path):
  store(tmp_path, name="imagenette", version="1.0.0", config="160px-v2")
  source = loading.load("imagenette", str(tmp_path))
  assert loading.num_examples(source, "train") == 6


def test_format_that_cannot_be_read_is_refused(tmp_path):
  store(tmp_path, file_format="array_record")
  assert "tfrecord" in load_error("fashion_mnist", tmp_path)


def test_num_examples_understands_split_expressions(digits_dir):
  source = loading.load("mnist_digits", digits_dir)
  assert loading.num_examples(source, "train+test") == 5000
  assert loading.num_examples(source, "train[:10%]") == 400


@pytest.mark.parametrize("split", ["tset", "train[:x]", ""])
def test_unknown_split_lists_the_known_ones(digits_dir, split):
  source = loading.load("mnist_digits", digits_dir)
  with pytest.raises(errors.UserError, match="one of: test, train") as info:
    loading.num_examples(source, split)
  assert "\n" not in str(info.value)


def test_unknown_name_lists_the_known_ones(tmp_path):
  assert "imagenet2012" in load_error("imagenet", tmp_path)


def test_missing_data_dir_is_named(tmp_path):
  message = load_error("cifar10", tmp_path / "typo")
  assert str(tmp_path / "typo") in message
  assert not (tmp_path / "typo").exists()


def test_without_a_network_the_message_says_how_to_get_the_data(
  tmp_path, monkeypatch
):
  def fail(*_):
    raise OSError("no network")

  monkeypatch.setattr(socket, "getaddrinfo", fail)
  monkeypatch.setattr("urllib.request.getproxies", dict)
  message = load_error("cifar10", tmp_path)
  for part in (str(tmp_path), "no network", "tfds build cifar10"):
    assert part in message
  assert not list(tmp_path.glob("cifar10/*"))


def test_manual_download_says_where_to_put_the_files(tmp_path):
  message = load_error("imagenet2012", tmp_path)
  assert str(tmp_path / "downloads" / "manual") in message
  assert "catalog/imagenet2012" in message


@pytest.mark.parametrize("name", ["fashion_mnist", "my_own"])
def test_any_name_of_tfds_may_be_given(tmp_path, name):
  store(tmp_path, name=name)
  source = loading.load(f"tfds:{name}", str(tmp_path))
  assert source.class_names == [*"0123456"]  # tfds stored no other names.
  assert not source.broken
  assert source.dataset == registry.Dataset(name)
  images, labels = read(source, source.dataset.pretrain)
  np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_any_name_may_have_a_configuration_and_version(tmp_path):
  store(tmp_path, name="my_own", version="1.2.3", config="small")
  for name in ("my_own/small", "my_own/small:1.2.3"):
    source = loading.load(f"tfds:{name}", str(tmp_path))
    assert loading.num_examples(source, "train") == 6


@pytest.mark.parametrize(
  ("splits", "validation", "test"),
  [
    (("train",), "", ""),
    (("train", "validation"), "", "validation"),
    (("train", "validation", "test"), "validation", "test"),
    (("train", "test"), "", "test"),
  ],
)
def test_splits_of_any_data_set_are_found_by_their_names(
  tmp_path, splits, validation, test
):
  store_images(tmp_path, "image", splits)
  source = loading.load("tfds:my_own", str(tmp_path))
  assert source.dataset.validation == validation
  assert source.dataset.test == test
  assert loading.num_examples(source, source_lib.all_splits(source)) == len(
    splits
  )
  assert source.num_classes == 0


def test_data_set_without_a_train_split_is_refused(tmp_path):
  store_images(tmp_path, "image", ("validation", "test"))
  message = load_error("tfds:my_own", tmp_path)
  assert "no split called train, only test, validation" in message


def test_data_set_without_an_image_is_refused(tmp_path):
  store_images(tmp_path, "picture", ("train",))
  message = load_error("tfds:my_own", tmp_path)
  (features,) = tmp_path.glob("my_own/1.0.0/features.json")
  assert str(features) in message
  assert "picture" in message


@pytest.mark.parametrize(
  ("feature", "reason"),
  [
    (tfds.features.Image(shape=(9, 9, 1), dtype=np.uint16), "uint16 and 1 "),
    (tfds.features.Image(shape=(9, 9, 1), dtype=np.float32), "float32 and 1 "),
    (tfds.features.Image(shape=(9, 9, 4)), "uint8 and 4 channels"),
    (tfds.features.Image(shape=(9, 9, 2)), "uint8 and 2 channels"),
    (tfds.features.Tensor(shape=(9, 9, 3), dtype=np.uint8), "no image called"),
    (tfds.features.Video(shape=(1, 9, 9, 3)), "no image called"),
  ],
)
def test_images_that_training_would_misread_are_refused(
  tmp_path, feature, reason
):
  store_images(tmp_path, "image", ("train",), feature)
  message = load_error("tfds:my_own", tmp_path)
  assert reason in message
  assert "features.json" in message


def test_missing_file_is_named(tmp_path):
  store(tmp_path)
  (file,) = tmp_path.glob("fashion_mnist/*/*-test.tfrecord*")
  file.unlink()
  message = load_error("fashion_mnist", tmp_path)
  assert f"{file} is missing" in message
  assert "copy it again" in message


def test_name_that_tfds_does_not_know_is_refused(tmp_path):
  message = load_error("tfds:no_such_data_set", tmp_path)
  assert "no_such_data_set is not in" in message
  assert str(tmp_path) in message
  assert len(message) < 800


@pytest.mark.parametrize(
  "name", ["tfds:", "tfds:/", "tfds:No Such", "TFDS:mnist"]
)
def test_name_that_cannot_be_is_refused(tmp_path, name):
  load_error(name, tmp_path)


@pytest.mark.parametrize(
  ("name", "stored", "label", "count"),
  [
    ("voc2007", "voc", "labels_no_difficult", 20),
    ("tfds:my_own", "my_own", "label", 0),  # Nothing tells the metric.
  ],
)
def test_multi_label_classes_count_only_where_the_metric_is_map11(
  tmp_path, name, stored, label, count
):
  classes = tfds.features.ClassLabel(num_classes=20)
  example = {"image": np.zeros((9, 9, 3), np.uint8), label: [3, 7]}
  tfds.dataset_builders.store_as_tfds_dataset(
    name=stored,
    version="5.0.0",
    config="2007",
    data_dir=tmp_path,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(9, 9, 3)),
        label: tfds.features.Sequence(classes),
      }
    ),
    split_datasets={"train": [(0, example)], "test": [(0, example)]},
  )
  assert loading.load(name, str(tmp_path)).num_classes == count


@pytest.mark.parametrize(
  ("split", "fraction", "expected"),
  [
    ("train[:10%]", 1.0, "train[:10%]"),
    ("", 0.1, "train[0:10]"),
    ("train[40:]+train[:20]", 0.5, "train[40:68]+train[0:10]"),
    ("train[-5:]", 0.01, "train[92:93]"),  # At least one.
    ("all", 1.0, "train"),
    ("all", 0.5, "train[0:48]"),
  ],
)
def test_a_part_of_a_data_set_is_pretrained_on(
  source, split, fraction, expected
):
  part = loading.select(source, split, fraction)
  assert part.dataset == source.dataset._replace(pretrain=expected)


@pytest.mark.parametrize(
  "split",
  [
    "tran",
    "train[:0]",
    "train[50%:10%]",
    "train[:98]",
    "train[:",
    "all[:10%]",
  ],
)
def test_a_part_without_images_is_one_line_with_the_splits(source, split):
  with pytest.raises(errors.UserError, match=r"from: train \(97\)\.$") as info:
    loading.select(source, split, 1.0)
  assert str(info.value).startswith(f"data.split='{split}' selects no images")


@pytest.mark.parametrize("name", ["tfds:my_own[:10%]", "cifar10[:10%]"])
def test_a_part_in_the_name_of_a_data_set_names_the_key_for_it(tmp_path, name):
  message = load_error(name, tmp_path)
  assert "data.split=train[:10%]" in message


def test_unknown_name_tells_how_to_give_others(tmp_path):
  message = load_error("my_own", tmp_path)
  for part in ("folder", "tfds:NAME"):
    assert part in message
