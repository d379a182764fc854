"""What the README tells people to type is typed here."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest

from byol_jax import config
from tests import command_line

README = (command_line.ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    .*python -m byol_jax\.main (.*)$", README, re.M)
QUICKSTART = "--config=experiments/quickstart.py"
EXPORT = f"{QUICKSTART} --mode=export"


def test_the_readme_has_commands():
  assert {QUICKSTART, EXPORT} <= set(COMMANDS)
  assert len(COMMANDS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
  "command",
  [c for c in COMMANDS if c not in (QUICKSTART, EXPORT)],
  ids=lambda c: c[:40],
)
def test_every_command_runs(command, tmp_path, digits_dir):
  """In miniature: two steps of a tiny network on the digits that ship."""
  given = [part for part in shlex.split(command) if "DIR" not in part]

  def run(*args):
    done = command_line.run(
      *args,
      *command_line.TINY[1:],
      "--config.data.dataset=mnist_digits",
      "--config.train.steps=2",
      "--config.evaluation.protocols=knn",
      f"--workdir={tmp_path}",
      data_dir=digits_dir,
    )
    assert done.returncode == 0, done.stderr

  if {"--mode=evaluate", "--mode=report"} & set(given):
    run(given[0])  # What is judged or drawn.
  run(*given)


@pytest.mark.slow
def test_the_quickstart_learns_and_its_encoder_can_be_used(
  tmp_path, digits_dir
):
  done = command_line.run(
    QUICKSTART, f"--workdir={tmp_path}", data_dir=digits_dir
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "results.json").read_text())
  value = {name: result["value"] for name, result in results.items()}
  assert value["linear/top1"] >= 0.955
  assert value["linear/top1"] >= value["baseline/pixels_linear_top1"] + 0.03
  assert value["linear/top1"] >= value["baseline/random_linear_top1"] + 0.03
  assert value["knn/top1"] > value["baseline/random_knn_top1"]

  done = command_line.run(
    *EXPORT.split(), f"--workdir={tmp_path}", data_dir=digits_dir
  )
  assert done.returncode == 0, done.stderr
  block = README.split("## Use the encoder\n")[1].split("\n## ")[0]
  code = "\n".join(
    line[4:]
    for line in block.splitlines()
    if line.startswith("    ") and "--mode" not in line
  )
  code = code.replace("runs/quickstart", str(tmp_path))
  scope = {"images": np.zeros((3, 28, 28, 3), np.float32)}
  exec(code, scope)
  assert scope["vectors"].shape == (3, 2048)
  assert np.all(np.isfinite(scope["vectors"]))


def test_every_key_in_the_readme_exists():
  keys = set(re.findall(r"config\.((?:\w+\.)+\w+)", README))
  keys |= {
    key
    for key in re.findall(r"`((?:\w+\.)+\w+)`", README)
    if key.split(".")[0] in config.default_config()
  }
  known = config.default_config()
  for key in keys - {"config.py"}:
    value = known
    for part in key.split("."):
      assert part in value, key
      value = value[part]


@pytest.mark.parametrize(
  "page",
  [
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/launching.md",
    "docs/results.md",
    "docs/scaling.md",
    "benchmarks/README.md",
  ],
)
def test_links_and_pictures_are_there(page):
  path = command_line.ROOT / page
  for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
    if not target.startswith("http"):
      assert pathlib.Path(path.parent / target).exists(), target
