"""Workdirs and encoder files of an earlier version are read as their own.

`workdirs/before_packages.zip` was written by commit 0a33dd8, the last one before
modules moved into packages: 40 steps of a tiny network on the shipped digits with
checkpoints after 20 and 40, their results, and the exported encoder with its
features of fixed images.
"""

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest

from byol_jax.config import convert
from byol_jax.interop import encoder_file
from byol_jax.training import saved_settings
from tests import command_line

_ARCHIVE = pathlib.Path(__file__).parent / "workdirs" / "before_packages.zip"
_SETTINGS = (
  *command_line.TINY,
  # The quickstart's settings of that time.
  "--config.train.epochs=12",
  *(
    f"--config.augment.{view}.{setting}"
    for view in ("view1", "view2")
    for setting in ("crop_area=0.3,1.0", "extra=()")
  ),
  "--config.model.projector.hidden_size=16",
  "--config.model.projector.output_size=8",
  "--config.model.predictor.hidden_size=16",
  "--config.train.steps=40",
  "--config.checkpoint.every_steps=20",
  "--config.evaluation.protocols=knn,linear,retrieval,geometry,logistic",
  "--config.evaluation.baselines=False",
)


@pytest.fixture
def workdir(tmp_path):
  with zipfile.ZipFile(_ARCHIVE) as archive:
    archive.extractall(tmp_path / "run")
  return tmp_path / "run"


def test_an_earlier_encoder_file_gives_the_same_features(workdir):
  encoder = encoder_file.load(workdir / "encoder" / "encoder.safetensors")
  images = np.random.RandomState(0).rand(6, 16, 16, 3).astype(np.float32)
  expected = np.load(workdir / "encoder" / "vectors.npy")
  np.testing.assert_allclose(encoder.encode(images), expected, atol=1e-5)


@pytest.mark.slow
def test_an_earlier_run_resumes_to_the_same_end_and_results(
  workdir, digits_dir
):
  expected = command_line.saved_leaves(workdir, 40)
  results = json.loads((workdir / "results.json").read_text())
  settings = json.loads((workdir / "config.json").read_text())
  shutil.rmtree(workdir / "checkpoints" / "40")
  (workdir / "results.json").unlink()

  # As the run was: XLA rounds otherwise with less optimisation.
  done = command_line.run(
    *_SETTINGS, f"--workdir={workdir}", data_dir=digits_dir, as_users=True
  )
  assert done.returncode == 0, done.stderr
  leaves = command_line.saved_leaves(workdir, 40)
  assert leaves.keys() == expected.keys()
  for name, leaf in expected.items():
    np.testing.assert_allclose(
      leaves[name], leaf, rtol=1e-4, atol=1e-5, err_msg=name
    )
  steps = [
    json.loads(line)["step"]
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  assert steps == [10, 20, 30, 40]

  settings["evaluation"]["baselines"] = False
  # Keys that are newer than the workdir were added.
  written = saved_settings.read(workdir)
  assert convert.flatten(settings).items() <= written.items()
  again = json.loads((workdir / "results.json").read_text())
  online = {n: r for n, r in results.items() if r["network"] == "online"}
  newer = {"geometry/lidar", "geometry/lidar_projection"}
  assert again.keys() == online.keys() | newer
  for name, result in online.items():
    assert again[name].keys() == result.keys()
    np.testing.assert_allclose(
      again[name]["value"], result["value"], rtol=0.01, err_msg=name
    )
