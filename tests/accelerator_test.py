"""The accelerator's benchmark runs in miniature, without TensorFlow."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from benchmarks import step_profile
from tests import command_line

PROGRAM = """
  %fusion.3 = f32[8]{0} fusion(%p), kind=kLoop, metadata={op_name="jit(f)/optimizer/add"}
  ROOT %custom-call.7 = (f32[8]) custom-call(%p, %q), custom_call_target="__cudnn$convForward"
  %dot.2 = f32[8,8]{1,0} dot(%a, %b), metadata={op_name="jit(f)/net/block/conv_1/conv_general_dilated"}
  %multiply.1 = f32[] multiply(%a, %b), metadata={op_name="jit(f)/net/batchnorm_0/mul"}
  %add.9 = f32[] add(%a, %b)
"""


@pytest.mark.parametrize(
  ("instruction", "part"),
  [
    ("fusion.3", "optimizer"),
    ("custom-call.7", "convolutions"),
    ("dot.2", "convolutions"),
    ("multiply.1", "batch norm"),
    ("add.9", "activations, pooling and other"),
  ],
)
def test_operations_are_attributed_to_parts(instruction, part):
  source = step_profile._sources(PROGRAM)[instruction]
  assert step_profile._part(source) == part


def test_kernels_of_a_graph_are_told_apart(tmp_path):
  """On a GPU, the instruction of an event may be a graph of many operations."""
  events = [
    ("fusion_3", "command_buffer_1", 300),
    ("multiply_1", "command_buffer_1", 150),
    ("sm90_gemm", "custom-call.7", 600),
    ("on the host", "", 9000),
  ]
  trace = {
    "traceEvents": [
      {"name": name, "dur": us, "args": {"hlo_op": operation}}
      for name, operation, us in events
    ]
  }
  with gzip.open(tmp_path / "host.trace.json.gz", "wt") as file:
    json.dump(trace, file)
  assert step_profile.parts(str(tmp_path), PROGRAM, steps=3) == {
    "convolutions": 0.2,
    "optimizer": 0.1,
    "batch norm": 0.05,
  }


@pytest.mark.slow
def test_the_benchmark_runs_in_miniature(tmp_path):
  # Python finds these before the installed packages, and they cannot be loaded.
  for name in ("tensorflow", "tensorflow_datasets"):
    (tmp_path / f"{name}.py").write_text("raise ImportError('not here')\n")
  path = os.pathsep.join([str(tmp_path), str(command_line.ROOT)])
  command = [sys.executable, "-m", "benchmarks.accelerator", "--miniature"]
  compared = "echo another program: 12.5 images/s, 3 GB"
  done = subprocess.run(
    [*command, f"--out={tmp_path / 'out'}", f"--compare={compared}"],
    env=os.environ | {"PYTHONPATH": path},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "out" / "accelerator.json").read_text())
  assert results["golden updates"]["passed"]
  assert results["compared program"]["images_per_second"] == 12.5
  assert "'NoSuchNet' is unknown" in results.pop("without memory")["problem"]
  for name, found in results.items():
    assert "problem" not in found, (name, found)
  assert results["tiny"]["parts_ms"]["optimizer"] > 0
  table = (tmp_path / "out" / "accelerator.md").read_text()
  assert f"| tiny | {results['tiny']['images_per_second']:,} |" in table
  assert "- without memory: it ended with 1" in table


def test_no_program_is_started_without_time(tmp_path):
  from benchmarks import accelerator

  sys_argv = ["accelerator", f"--out={tmp_path}", "--miniature", "--seconds=1"]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, "argv", sys_argv)
    accelerator.main()
  results = json.loads((tmp_path / "accelerator.json").read_text())
  assert {x["problem"] for x in results.values()} == {"no time was left"}
