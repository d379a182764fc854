"""Data sets by name: the digits that ship, what users prepare, and mistakes."""

import hashlib
import multiprocessing
import pathlib
import socket
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax import errors
from byol_jax.data import loading, mnist_digits, registry
from byol_jax.evaluation import scores


def read(source, split) -> tuple[np.ndarray, np.ndarray]:
  examples = list(tfds.as_numpy(source.builder.as_dataset(split=split)))
  return (
    np.stack([example["image"] for example in examples]),
    np.array([example["label"] for example in examples]),
  )


def load_error(name, data_dir) -> str:
  with pytest.raises(errors.UserError) as info:
    loading.load(name, str(data_dir))
  message = str(info.value)
  assert "\n" not in message
  return message


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


def store(data_dir, *, name="fashion_mnist", version="3.0.1", **options):
  examples = [
    (i, {"image": np.full((28, 28, 1), i, np.uint8), "label": i})
    for i in range(6)
  ]
  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version=version,
    data_dir=data_dir,
    features=tfds.features.FeaturesDict(
      {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=7),
      }
    ),
    split_datasets={"train": examples, "test": examples[:2]},
    **options,
  )


@pytest.mark.parametrize("version", ["3.0.1", "1.2.3", "9.0.0"])
def test_what_a_user_stored_is_read_as_it_is(tmp_path, version):
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


def test_tensorflow_sees_no_accelerator():
  import tensorflow as tf

  assert not tf.config.get_visible_devices("GPU")


@pytest.mark.parametrize("name", ["fashion_mnist", "my_own"])
def test_any_name_of_tfds_may_be_given(tmp_path, name):
  store(tmp_path, name=name)
  source = loading.load(f"tfds:{name}", str(tmp_path))
  assert source.num_classes == 7
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
  ("splits", "test"),
  [
    (("train",), ""),
    (("train", "validation"), "validation"),
    (("train", "validation", "test"), "test"),
  ],
)
def test_splits_of_any_data_set_are_found_by_their_names(
  tmp_path, splits, test
):
  store_images(tmp_path, "image", splits)
  source = loading.load("tfds:my_own", str(tmp_path))
  assert source.dataset.test == test
  assert source.num_classes == 0


def store_images(data_dir, feature, splits):
  """A data set without labels, of an image under some name."""
  example = {feature: np.zeros((9, 9, 3), np.uint8)}
  tfds.dataset_builders.store_as_tfds_dataset(
    name="my_own",
    version="1.0.0",
    data_dir=data_dir,
    features=tfds.features.FeaturesDict(
      {feature: tfds.features.Image(shape=(9, 9, 3))}
    ),
    split_datasets={split: [(0, example)] for split in splits},
  )


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


class Downloads:
  """In place of tfds' downloads: one folder, in which files are empty."""

  def __init__(self, folder: pathlib.Path):
    self.manual_dir = folder

  def download(self, _):
    return self.manual_dir / "list.txt"

  def download_and_extract(self, urls):
    one = not isinstance(urls, dict)
    return self.manual_dir if one else dict.fromkeys(urls, self.manual_dir)

  def extract(self, _):
    return self.manual_dir

  def iter_archive(self, _):
    return iter(())


# The number of classes, and the splits of the paper by their names in tfds.
TRANSFER = {
  "imagenet2012_1pct": (1000, "train", "", "validation"),
  "imagenet2012_10pct": (1000, "train", "", "validation"),
  "food101": (101, "train", "", "validation"),
  "sun397": (397, "train", "", "test"),
  "cars196": (196, "train", "", "test"),
  "voc2007": (20, "train", "validation", "test"),
  "dtd": (47, "train", "validation", "test"),
  "oxford_iiit_pet": (37, "train", "", "test"),
  "caltech101": (102, "train", "", "test"),
  "oxford_flowers102": (102, "train", "validation", "test"),
}


@pytest.mark.parametrize("name", TRANSFER)
def test_tfds_has_the_splits_and_classes_of_what_is_transferred_to(
  tmp_path, name
):
  dataset = registry.DATASETS[name]
  builder = tfds.builder(dataset.tfds_name, data_dir=tmp_path)
  num_classes, *splits = TRANSFER[name]
  assert [dataset.train, dataset.validation, dataset.test] == splits
  assert isinstance(builder.info.features["image"], tfds.features.Image)
  label = builder.info.features[dataset.label]
  assert getattr(label, "feature", label).num_classes == num_classes

  for file in ("list", "Training_01", "Testing_01"):  # Of ImageNet and SUN397.
    (tmp_path / f"{file}.txt").touch()
  for part in ("train", "val"):
    tarfile.open(tmp_path / f"ILSVRC2012_img_{part}.tar", "w").close()
  generators = builder._split_generators(Downloads(tmp_path))
  there = {str(getattr(split, "name", split)) for split in generators}
  assert {*filter(None, splits), dataset.pretrain} <= there


def test_metrics_are_those_of_the_paper():
  metrics = {k: v.metric for k, v in registry.DATASETS.items()}
  assert set(metrics.values()) == set(scores.METRICS)
  assert {k: v for k, v in metrics.items() if v != "top1"} == {
    "voc2007": "map11",
    "oxford_iiit_pet": "mean_per_class",
    "caltech101": "mean_per_class",
    "oxford_flowers102": "mean_per_class",
  }


def test_the_twelve_transfers_of_the_paper_are_known():
  known = {*registry.DATASETS, *registry.NOT_IN_TFDS}
  assert len(registry.PAPER_TRANSFER) == 12
  assert set(registry.PAPER_TRANSFER) <= known
  assert set(registry.NOT_IN_TFDS) <= set(registry.PAPER_TRANSFER)
  for figures in registry.PAPER_TRANSFER.values():
    assert all(0.5 < figure < 1 for figure in figures)


@pytest.mark.parametrize("name", ["birdsnap", "fgvc_aircraft"])
def test_what_tfds_lacks_is_to_be_read_from_a_folder(tmp_path, name):
  assert name not in tfds.list_builders()
  message = load_error(name, tmp_path)
  for part in (name, "https://", "dataset=folder"):
    assert part in message


@pytest.mark.parametrize(
  ("name", "stored", "label", "count"),
  [
    ("voc2007", "voc", "labels_no_difficult", 20),
    ("tfds:my_own", "my_own", "label", 0),  # Nothing says how to judge it.
  ],
)
def test_several_classes_an_image_are_counted_where_they_are_meant(
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


def test_unknown_name_tells_how_to_give_others(tmp_path):
  message = load_error("my_own", tmp_path)
  for part in ("folder", "tfds:NAME"):
    assert part in message
