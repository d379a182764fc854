"""The registry of data sets against tfds and the paper."""

import pathlib
import subprocess
import sys
import tarfile

import pytest
import tensorflow_datasets as tfds

from byol_jax.data import registry
from byol_jax.evaluation.metrics import METRICS
from tests import command_line
from tests.tfds_data import load_error


class Downloads:
  """Stands in for the download manager of tfds: one folder of empty files."""

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


# The number of classes, and the paper's splits (train, validation, test) by
# their names in tfds.
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
def test_tfds_has_the_classes_and_splits_of_the_transfer_data_sets(
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
  assert set(metrics.values()) == set(METRICS)
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
  for metrics in registry.PAPER_TRANSFER.values():
    assert all(0.5 < metric < 1 for metric in metrics)


@pytest.mark.parametrize("name", ["birdsnap", "fgvc_aircraft"])
def test_error_for_a_data_set_missing_in_tfds_explains_folders(tmp_path, name):
  assert name not in tfds.list_builders()
  message = load_error(name, tmp_path)
  for part in (name, "https://", "dataset=folder"):
    assert part in message


def test_registry_and_statistics_do_not_need_tensorflow():
  code = (
    "import sys, byol_jax.data.registry, byol_jax.data.statistics;"
    " assert not [m for m in sys.modules if m.startswith('tensorflow')]"
  )
  subprocess.run(
    [sys.executable, "-c", code], cwd=command_line.ROOT, check=True
  )
