"""The command line as users meet it, mistakes included."""

import concurrent.futures
import json
import shutil

import numpy as np
import pytest

from tests import command_line

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
  "an encoder to train": (
    [QUICKSTART, "--encoder=x.safetensors"],
    ["--encoder=x.safetensors", "--mode=evaluate"],
  ),
  "an encoder that is not there": (
    [QUICKSTART, "--mode=evaluate", "--encoder=/no/where"],
    ["/no/where", "No such file", "--mode=export"],
  ),
  "unwritable workdir": (
    [QUICKSTART, "--workdir=/dev/null/run"],
    ["/dev/null/run", "choose another"],
  ),
}


@pytest.mark.slow
def test_every_mistake_gets_one_helpful_line(tmp_path, digits_dir):
  def make(name):
    args, _ = MISTAKES[name]
    workdir = f"--workdir={tmp_path / name.replace(' ', '-')}"
    return command_line.run(workdir, *args, data_dir=digits_dir, devices=2)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    for name, done in zip(MISTAKES, pool.map(make, MISTAKES), strict=True):
      _, expected = MISTAKES[name]
      assert done.returncode == 1, (name, done.stderr)
      lines = done.stderr.strip().splitlines()
      assert len(lines) == 1, (name, done.stderr)
      assert lines[0].startswith("Error: "), (name, lines)
      assert "Traceback" not in lines[0], (name, lines)
      for part in expected:
        assert part in lines[0], (name, lines)


@pytest.mark.slow
def test_a_run_leaves_the_promised_workdir(tmp_path, digits_dir):
  done = command_line.run(
    *command_line.TINY,
    f"--workdir={tmp_path}",
    "--config.train.steps=12",
    data_dir=digits_dir,
  )
  assert done.returncode == 0, done.stderr
  assert "linear/top1" in done.stdout

  config = json.loads((tmp_path / "config.json").read_text())
  assert config["train"]["steps"] == 12
  rows = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  assert [row["step"] for row in rows] == [10, 12]
  assert {"train/loss", "train/tau", "train/top1_accuracy"} <= rows[-1].keys()

  results = json.loads((tmp_path / "results.json").read_text())
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
    assert result["step"] == (0 if name.startswith("baseline") else 12)
  assert (tmp_path / "checkpoints" / "12").is_dir()
  assert list((tmp_path / "tensorboard").iterdir())
  for figure in ("curves.png", "views.png"):
    assert (tmp_path / "figures" / figure).stat().st_size > 10_000

  # The same figures again, from the checkpoint and with another batch size.
  shutil.rmtree(tmp_path / "features")
  again = command_line.run(
    *command_line.TINY,
    f"--workdir={tmp_path}",
    "--config.train.steps=12",
    "--mode=evaluate",
    "--config.evaluation.batch_size=37",
    data_dir=digits_dir,
  )
  assert again.returncode == 0, again.stderr
  repeated = json.loads((tmp_path / "results.json").read_text())
  for name, result in results.items():
    np.testing.assert_allclose(
      repeated[name]["value"], result["value"], atol=0.003, err_msg=name
    )

  # Embeddings of another split, and the mistakes that a checkpoint allows.
  def mode(*args):
    return command_line.run(
      *command_line.TINY,
      f"--workdir={tmp_path}",
      "--config.train.steps=12",
      *args,
      data_dir=digits_dir,
    )

  done = mode("--mode=embed", "--split=test[:7]")
  assert done.returncode == 0, done.stderr
  (path,) = (tmp_path / "embeddings").iterdir()
  assert str(path) in done.stdout
  embedded = np.load(path)
  assert embedded["embeddings"].shape == (7, 16)
  assert embedded["labels"].shape == (7,)
  assert len(set(embedded["ids"].tolist())) == 7

  # The encoder by itself, judged elsewhere.
  done = mode("--mode=export")
  assert done.returncode == 0, done.stderr
  encoder = tmp_path / "encoder" / "encoder.safetensors"
  assert str(encoder) in done.stdout
  other = tmp_path / "other"
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
  (result,) = json.loads((other / "results.json").read_text()).values()
  assert result["encoder"] == str(encoder)
  assert result["step"] == 12
  expected = repeated["knn/top1"]["value"]
  np.testing.assert_allclose(result["value"], expected, atol=0.003)
  settings = json.loads((other / "config.json").read_text())
  assert settings["model"]["encoder"]["name"] == "TinyResNet"

  for args, parts in (
    (["--mode=evaluate", "--step=11"], ["step 11", "12"]),
    (["--mode=embed", "--split=tset"], ["tset", "test, train"]),
    (["--mode=evaluate", "--config.data.image_size=20"], ["image_size=16"]),
  ):
    done = mode(*args)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert all(part in line for part in parts), line
