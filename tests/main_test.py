"""The command line as users meet it, mistakes included."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from pyarrow import parquet

from tests import command_line, encoder_cases, image_folders

QUICKSTART = "--config=experiments/quickstart.py"

# What is typed, and what the one line of answer must contain.
MISTAKES = {
  "no configuration": ([], ["--config", "experiments/quickstart.py"]),
  "no such experiment": (
    ["--config=experiments/quickstrat.py"],
    ["quickstrat"],
  ),
  "misspelt key": (
    [QUICKSTART, "--config.train.batch_sise=32"],
    ["batch_sise", "batch_size"],
  ),
  "unknown format": (
    [QUICKSTART, "--mode=embed", "--format=csv"],
    ["--format 'csv' is unknown", "npz, parquet"],
  ),
  "wrong type": (
    [QUICKSTART, "--config.train.batch_size=many"],
    ["batch_size", "many"],
  ),
  "misspelt flag": ([QUICKSTART, "--wrkdir=x"], ["wrkdir", "workdir"]),
  "stray argument": ([QUICKSTART, "pretrain"], ["pretrain", "--config"]),
  "unknown mode": ([QUICKSTART, "--mode=trian"], ["trian", "pretrain"]),
  "unknown preset": (
    ["--config=experiments/imagenet.py:200"],
    ["200", "40, 100, 300, 1000"],
  ),
  "impossible value": (
    [QUICKSTART, "--config.augment.view1.flip_prob=1.5"],
    ["augment.view1.flip_prob=1.5", "[0, 1]"],
  ),
  "unknown encoder": (
    [QUICKSTART, "--config.model.encoder.name=ResNet19"],
    ["ResNet19", "ResNet18"],
  ),
  "unknown data set": (
    [QUICKSTART, "--config.data.dataset=mnits"],
    ["mnits", "mnist_digits"],
  ),
  "data that is not there": (
    ["--config=experiments/imagenet.py", "--config.data.data_dir=/no/where"],
    ["/no/where", "imagenet2012"],
  ),
  "unknown protocol": (
    [QUICKSTART, "--config.evaluation.protocols=knn,lienar"],
    ["lienar", "linear"],
  ),
  "a key without its section": (
    [QUICKSTART, "--config.batch_size=8"],
    ["--config.batch_size=8", "did you mean --config.train.batch_size?"],
  ),
  "a key without config": (
    [QUICKSTART, "--train.batch_size=8"],
    ["--train.batch_size is unknown", "--config.train.batch_size?"],
  ),
  "batch beyond the data": (
    [QUICKSTART, "--config.train.batch_size=8192"],
    ["8192", "4000"],
  ),
  "odd batch on two devices": (
    [QUICKSTART, "--config.train.batch_size=33"],
    ["33", "2 devices", "32 or 34"],
  ),
  "evaluating nothing": (
    [QUICKSTART, "--mode=evaluate"],
    ["no checkpoint", "pretrain"],
  ),
  "learning from the test split": (
    [QUICKSTART, "--config.evaluation.train_split=train+test[:10]"],
    ["10 examples", "'test'", "evaluation.train_split"],
  ),
  "a data set that tfds lacks": (
    [QUICKSTART, "--config.evaluation.dataset=birdsnap"],
    ["birdsnap", "folder"],
  ),
  "an encoder to export": (
    [QUICKSTART, "--mode=export", "--encoder=x.safetensors"],
    ["--encoder=x.safetensors", "--mode=pretrain, evaluate or embed"],
  ),
  "an encoder that is not there": (
    [QUICKSTART, "--mode=evaluate", "--encoder=/no/where"],
    ["/no/where", "No such file", "--mode=export"],
  ),
  "two encoders to start from": (
    [QUICKSTART, "--encoder=a", "--config.model.encoder.init_from=b"],
    ["--encoder=a", "init_from=b", "one of them"],
  ),
  "unwritable workdir": (
    [QUICKSTART, "--workdir=/dev/null/run"],
    ["/dev/null/run", "choose another"],
  ),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory, digits_dir):
  """Name of a mistake to the program that made it, started two at a time."""
  folder = tmp_path_factory.mktemp("mistakes")

  def make(name):
    args, _ = MISTAKES[name]
    workdir = f"--workdir={folder / name.replace(' ', '-')}"
    return command_line.run(workdir, *args, data_dir=digits_dir, devices=2)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    yield {name: pool.submit(make, name) for name in MISTAKES}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_helpful_line(name, answers):
  _, expected = MISTAKES[name]
  done = answers[name].result()
  assert done.returncode == 1, done.stderr
  (line,) = done.stderr.strip().splitlines()
  assert line.startswith("Error: ")
  assert "Traceback" not in line
  for part in expected:
    assert part in line


STEPS = 12


def tiny(workdir, digits_dir, *args):
  """Runs the quickstart in miniature and returns what it printed."""
  done = command_line.run(
    *command_line.TINY,
    f"--workdir={workdir}",
    f"--config.train.steps={STEPS}",
    *args,
    data_dir=digits_dir,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_dir):
  """A workdir, read only, and what its run printed."""
  workdir = tmp_path_factory.mktemp("finished")
  return workdir, tiny(workdir, digits_dir)


@pytest.fixture
def workdir(finished, tmp_path):
  """A copy of that workdir without cached features."""
  copy = tmp_path / "run"
  shutil.copytree(finished[0], copy, ignore=shutil.ignore_patterns("features"))
  return copy


def read_results(workdir):
  return json.loads((workdir / "results.json").read_text())


@pytest.mark.slow
def test_a_run_leaves_the_promised_workdir(finished):
  workdir, stdout = finished
  assert "linear/top1" in stdout
  config = json.loads((workdir / "config.json").read_text())
  assert config["train"]["steps"] == STEPS
  rows = [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  assert [row["step"] for row in rows] == [10, STEPS]
  assert {"train/loss", "train/tau", "train/top1_accuracy"} <= rows[-1].keys()

  results = read_results(workdir)
  assert set(results) == {
    "knn/top1",
    "linear/top1",
    "baseline/pixels_knn_top1",
    "baseline/pixels_linear_top1",
    "baseline/random_knn_top1",
    "baseline/random_linear_top1",
  }
  for name, result in results.items():
    assert 0 <= result["value"] <= 1
    assert result["examples"] == 1000
    assert result["split"] == "test"
    assert result["step"] == (0 if name.startswith("baseline") else STEPS)
  assert (workdir / "checkpoints" / str(STEPS)).is_dir()
  assert list((workdir / "tensorboard").iterdir())
  for picture in ("curves.png", "views.png"):
    assert (workdir / "figures" / picture).stat().st_size > 10_000


@pytest.mark.slow
def test_an_evaluation_in_other_batches_gives_the_same_metrics(
  workdir, digits_dir
):
  results = read_results(workdir)
  tiny(
    workdir,
    digits_dir,
    "--mode=evaluate",
    "--config.evaluation.batch_size=37",
  )
  repeated = read_results(workdir)
  for name, result in results.items():
    np.testing.assert_allclose(
      repeated[name]["value"], result["value"], atol=0.003, err_msg=name
    )


@pytest.mark.slow
def test_embeddings_of_a_split_are_written(workdir, digits_dir):
  stdout = tiny(workdir, digits_dir, "--mode=embed", "--split=test[:7]")
  (path,) = (workdir / "embeddings").iterdir()
  assert str(path) in stdout
  embedded = np.load(path)
  assert embedded["embeddings"].shape == (7, 16)
  assert embedded["labels"].shape == (7,)
  assert len(set(embedded["ids"].tolist())) == 7


@pytest.mark.slow
def test_an_exported_encoder_is_evaluated_by_itself(workdir, digits_dir):
  stdout = tiny(workdir, digits_dir, "--mode=export")
  encoder = workdir / "encoder" / "encoder.safetensors"
  assert str(encoder) in stdout
  other = workdir / "other"
  done = command_line.run(
    QUICKSTART,
    f"--workdir={other}",
    "--mode=evaluate",
    f"--encoder={encoder}",
    "--config.evaluation.protocols=knn",
    "--config.evaluation.baselines=False",
    data_dir=digits_dir,
  )
  assert done.returncode == 0, done.stderr
  (result,) = read_results(other).values()
  assert result["encoder"] == str(encoder)
  assert result["step"] == STEPS
  expected = read_results(workdir)["knn/top1"]["value"]
  np.testing.assert_allclose(result["value"], expected, atol=0.003)
  settings = json.loads((other / "config.json").read_text())
  assert settings["model"]["encoder"]["name"] == "TinyResNet"


@pytest.mark.slow
def test_an_encoder_embeds_a_folder_of_which_the_experiment_knows_nothing(
  tmp_path,
):
  """Also the images that would be held out for testing; other data are absent."""
  kinds = ("cat", "dog")
  names = [f"{kind}/{i}.png" for kind in kinds for i in range(12)]
  root = image_folders.fill(tmp_path / "photos", image_folders.tree(*names))
  encoder_cases.save(tmp_path / "encoder.safetensors")
  done = command_line.run(
    "--config=experiments/folder.py",
    "--mode=embed",
    f"--encoder={tmp_path / 'encoder.safetensors'}",
    "--config.evaluation.dataset=folder",
    f"--config.evaluation.root={root}",
    "--format=parquet",
    f"--workdir={tmp_path / 'run'}",
    data_dir=str(tmp_path / "data"),
  )
  assert done.returncode == 0, done.stderr
  assert "with 24 of 24 images (" in done.stdout
  (path,) = (tmp_path / "run" / "embeddings").iterdir()
  found = parquet.read_table(path).to_pydict()
  assert sorted(found["id"]) == sorted(names)
  for name, label, class_name in zip(
    found["id"], found["label"], found["class_name"], strict=True
  ):
    assert name.split("/")[0] == class_name == kinds[label]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("args", "parts"),
  [
    (["--mode=evaluate", "--step=11"], ["step 11", "12"]),
    (["--mode=embed", "--split=tset"], ["tset", "test, train"]),
    (["--mode=evaluate", "--config.data.image_size=20"], ["image_size=16"]),
  ],
)
def test_a_mistake_about_a_checkpoint_gets_one_line(
  args, parts, workdir, digits_dir
):
  done = command_line.run(
    *command_line.TINY,
    f"--workdir={workdir}",
    f"--config.train.steps={STEPS}",
    *args,
    data_dir=digits_dir,
  )
  assert done.returncode == 1
  (line,) = done.stderr.strip().splitlines()
  assert all(part in line for part in parts), line


@pytest.mark.slow
def test_both_commands_start_with_huge_pages(tmp_path):
  script = pathlib.Path(sys.executable).with_name("byol_jax")
  if not script.exists():
    pytest.skip("byol_jax is not installed in this environment")
  # An experiment runs inside the program and can print its variables.
  experiment = tmp_path / "tell.py"
  experiment.write_text(
    "import os\ndef get_config():\n"
    "  raise ValueError('tunables ' + os.environ.get('GLIBC_TUNABLES', ''))\n"
  )
  env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  told = [
    subprocess.run(
      [*command, f"--config={experiment}"],
      capture_output=True,
      text=True,
      cwd=command_line.ROOT,
      env=env,
    ).stderr
    for command in ([sys.executable, "-m", "byol_jax.main"], [script])
  ]
  assert "tunables" in told[0]
  assert told[0] == told[1]
  policy = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
  given_on_request = policy.exists() and "[madvise]" in policy.read_text()
  assert ("hugetlb=1" in told[0]) == given_on_request
