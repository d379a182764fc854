"""Prepared data sets that may come from anyone."""

import json

import pytest

from byol_jax import errors
from byol_jax.data import loading, tfds_store
from tests.tfds_data import load_error, store


@pytest.fixture
def folder(tmp_path):
  store(tmp_path)
  (folder,) = tmp_path.glob("fashion_mnist/*")
  return folder


def image(*, key="pythonClassName", name="payload_of_a_stranger.Image"):
  """features.json with an image of some class."""
  return {
    "pythonClassName": (
      "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    ),
    "featuresDict": {
      "features": {"image": {key: name, "image": {"shape": {}}}}
    },
  }


@pytest.mark.parametrize(
  "features",
  [
    image(),
    image(key="python_class_name"),
    image(name="payload_of_a_stranger"),
    {"type": "payload_of_a_stranger.Image", "content": {}, "proto_cls": ""},
    {"pythonClassName": "payload_of_a_stranger.Image", "jsonFeature": {}},
  ],
)
@pytest.mark.parametrize("name", ["fashion_mnist", "tfds:fashion_mnist"])
def test_a_description_imports_no_code_of_strangers(
  features, name, folder, tmp_path, monkeypatch
):
  marker = tmp_path / "imported"
  (tmp_path / "payload_of_a_stranger.py").write_text(
    f"open({str(marker)!r}, 'w')"
  )
  monkeypatch.syspath_prepend(tmp_path)
  (folder / "features.json").write_text(json.dumps(features))
  message = load_error(name, tmp_path)
  assert not marker.exists()
  for part in ("payload_of_a_stranger", str(folder / "features.json")):
    assert part in message


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"name": 3, "splits": "x"}',
    b"[" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
  ],
)
def test_a_damaged_description_is_one_line(content, file, folder, tmp_path):
  (folder / file).write_bytes(content)
  message = load_error("fashion_mnist", tmp_path)
  assert str(folder) in message
  assert len(message) < 500


def test_a_missing_description_is_one_line(folder, tmp_path):
  (folder / "dataset_info.json").unlink()
  assert str(folder) in load_error("fashion_mnist", tmp_path)


def test_a_huge_description_is_not_read(folder, tmp_path):
  with (folder / "dataset_info.json").open("wb") as file:
    file.truncate(2_000_000_000)  # Takes no space on disk.
  assert "2000000000 bytes" in load_error("fashion_mnist", tmp_path)


def test_the_address_of_a_bucket_stays_as_it_is():
  assert tfds_store.absolute_data_dir("gs://bucket/dir") == "gs://bucket/dir"
  assert tfds_store.absolute_data_dir("/a/../b") == "/b"


def test_a_data_dir_without_a_home_is_refused():
  with pytest.raises(errors.UserError, match="TFDS_DATA_DIR"):
    tfds_store.absolute_data_dir("~no_such_user/data")


def test_what_was_stored_by_tfds_is_still_read(folder, tmp_path):
  source = loading.load("fashion_mnist", str(tmp_path))
  assert str(source.builder.data_dir) == str(folder)
