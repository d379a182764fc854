"""`byol_jax.load_encoder` finds an encoder, and tells what it was trained on."""

import json
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
import safetensors

import byol_jax
from byol_jax import errors
from tests import encoder_cases

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ("cat", "dog with a \n in its name")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("encoder") / "mine.safetensors"
  encoder_cases.save(path, class_names=NAMES)
  return path


@pytest.mark.parametrize(
  "place",
  ["encoder/encoder.safetensors", "encoder.safetensors", "model.safetensors"],
)
def test_an_encoder_is_found_in_a_folder(path, place, tmp_path):
  (tmp_path / place).parent.mkdir(exist_ok=True)
  shutil.copy(path, tmp_path / place)
  for kind in (str, pathlib.Path):
    assert byol_jax.load_encoder(kind(tmp_path)).step == 7


def test_a_file_of_any_name_is_loaded(path):
  assert byol_jax.load_encoder(str(path)).step == 7


def test_a_folder_without_an_encoder_is_one_line(tmp_path):
  with pytest.raises(
    errors.UserError, match="none of encoder/encoder"
  ) as raised:
    byol_jax.load_encoder(tmp_path)
  assert "\n" not in str(raised.value)
  with pytest.raises(errors.UserError, match="No such file"):
    byol_jax.load_encoder(tmp_path / "absent")


def test_an_unknown_name_is_no_attribute():
  with pytest.raises(AttributeError, match="no attribute 'load_encoders'"):
    _ = byol_jax.load_encoders


def test_a_file_tells_classes_and_training(path):
  encoder = byol_jax.load_encoder(path)
  assert encoder.class_names == NAMES
  assert encoder.training["data.dataset"] == "folder"
  assert encoder.training["train.batch_size"] == 4096
  assert encoder.training["version"] == byol_jax.__version__
  json.dumps(dict(encoder.training))


def test_a_file_tells_nothing_of_the_machine(path):
  with safetensors.safe_open(path, "numpy") as file:
    told = json.loads(file.metadata()["about"])["training"]
  assert told["data.root"] == "photos"
  assert told["data.labels"] == "labels.csv"
  assert told["model.encoder.init_from"] == "old.safetensors"
  assert not [x for x in map(str, told.values()) if "/" in x or "~" in x]


def test_a_file_of_an_earlier_version_tells_nothing(tmp_path):
  archive = ROOT / "tests" / "workdirs" / "before_packages.zip"
  with zipfile.ZipFile(archive) as file:
    file.extract("encoder/encoder.safetensors", tmp_path)
  encoder = byol_jax.load_encoder(tmp_path)
  assert encoder.class_names == ()
  assert encoder.training == {}


@pytest.mark.parametrize(
  "about",
  ['{"class_names": [1], "training": {}}', '{"class_names": []}', "[]", "{"],
)
def test_what_no_export_tells_is_one_line(path, about, tmp_path):
  encoder_cases.rewrite(path, tmp_path / "encoder.safetensors", about=about)
  with pytest.raises(
    errors.UserError, match=r"about is no|class_names and training are"
  ):
    byol_jax.load_encoder(tmp_path)


@pytest.mark.parametrize("spoil", [{"about": "{}"}, {"about": None}])
def test_what_a_file_tells_has_a_checksum(path, spoil, tmp_path):
  encoder_cases.rewrite(
    path, tmp_path / "encoder.safetensors", keep_checksums=True, **spoil
  )
  with pytest.raises(errors.UserError, match="checksum"):
    byol_jax.load_encoder(tmp_path)


def test_the_package_itself_is_imported_without_jax():
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "import byol_jax, sys; from byol_jax import errors;"
      "print(sorted({'jax', 'haiku', 'numpy', 'tensorflow'} & set(sys.modules)))",
    ],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.stdout == "[]\n", done.stderr
