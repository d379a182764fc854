"""Measures all that matters on an accelerator, with one command.

    python -m benchmarks.accelerator --out=DIR --compare="COMMAND"

Runs the other benchmarks one after the other, each in a process of its own, so
that an error or too little memory costs one figure and not the rest. Writes
DIR/accelerator.json and DIR/accelerator.md after each of them, and stops before
the time is up. Needs no TensorFlow. --miniature does the same on a small network,
for a CPU. --compare is a program that prints a rate in images/s in its last line;
it is run after ours on the same images.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_SECONDS = 480  # Our choice: half of the time for which a machine can be had.
_LEAST_SECONDS = 20  # No program is started with less.

# Images/s of one H100 that the rate of ResNet-50 at 224 pixels is judged by: 3/8 of
# what supervised training reaches, which makes 3 forward-equivalents an image
# instead of 8.
_BOUNDS = {
  "of MLPerf's record (7,138 images/s, supervised)": 2677,
  "of good code (5,200 images/s, supervised)": 1950,
}


class Job(NamedTuple):
  """A program to run.

  Attributes:
    name: of its figures.
    module: in this package.
    flags: of the command line.
  """

  name: str
  module: str
  flags: tuple[str, ...] = ()


def main() -> None:
  """Runs all programs that fit into the time."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--compare", default="")
  parser.add_argument("--seconds", type=float, default=_SECONDS)
  parser.add_argument("--miniature", action="store_true")
  options = parser.parse_args()
  options.out.mkdir(parents=True, exist_ok=True)
  deadline = time.monotonic() + options.seconds
  results: dict[str, Any] = {}
  with tempfile.TemporaryDirectory() as caches:
    jobs = _miniature() if options.miniature else _jobs()
    for name, run in _programs(list(jobs), options.compare, caches):
      left = deadline - time.monotonic()
      if left < _LEAST_SECONDS:
        results[name] = {"problem": "no time was left"}
      else:
        started = time.monotonic()
        results[name] = run(left)
        results[name]["seconds"] = round(time.monotonic() - started, 1)
      print(name, json.dumps(results[name]), flush=True)
      _write(options.out, results)


def _jobs() -> Iterator[Job]:
  """Yields the programs, the most telling first."""
  large = ("--encoder=ResNet50", "--profile")
  small = ("--encoder=ResNet18", "--stem=cifar", "--image_size=32")
  step = "device_step"
  yield Job("golden updates", "golden_step")
  yield Job("ResNet-50, 256", step, (*large, "--batch_size=256"))
  yield Job("ResNet-50, counted memory", "memory", ("--batch_size=256", *_HALF))
  yield Job(
    "ResNet-18, images on the device, 256",
    step,
    (*small, "--batch_size=256", "--input=images", "--profile"),
  )
  yield Job("ResNet-50, 512", step, (*large, "--batch_size=512"))
  yield Job(
    "ResNet-18, images on the device, 1024",
    step,
    (*small, "--batch_size=1024", "--input=images"),
  )
  yield Job("ResNet-50, crops, 256", step, (*large, "--input=crops"))
  yield Job(
    "ResNet-50, batch norm in bfloat16, 256",
    step,
    (*large, "--set=model.batch_norm.precision=bfloat16"),
  )
  yield Job("ResNet-50, warm start", step, ("--steps=2",))
  yield Job("ResNet-18, 256", step, (*small, "--batch_size=256"))
  yield Job("ResNet-18, 1024", step, (*small, "--batch_size=1024"))
  yield Job("ResNet-50, 128", step, (*large, "--batch_size=128"))
  yield Job("ResNet-50, float32, 128", step, ("--batch_size=128", *_FULL))


_HALF, _FULL = ("--precision=bfloat16",), ("--precision=float32",)


def _miniature() -> Iterator[Job]:
  """Yields a program of each kind, for a CPU."""
  network = ("--encoder=TinyResNet", "--stem=cifar", "--image_size=16")
  tiny = (*network, "--batch_size=8", "--steps=1")
  yield Job("golden updates", "golden_step")
  yield Job("tiny", "device_step", (*tiny, "--profile"))
  yield Job("tiny, warm start", "device_step", tiny)
  yield Job("tiny, crops", "device_step", (*tiny, "--input=crops"))
  yield Job(
    "tiny, images on the device", "device_step", (*tiny, "--input=images")
  )
  yield Job("without memory", "device_step", ("--encoder=NoSuchNet",))


def _programs(jobs, compare: str, caches: str) -> Iterator[tuple[str, Any]]:
  """Yields names and functions of the seconds that are left, to figures."""
  for i, job in enumerate(jobs):
    yield job.name, lambda left, job=job: _run_job(job, caches, left)
    if compare and i == 1:  # Right after the figure that it is compared with.
      yield "compared program", lambda left: _run_compared(compare, left)


def _run_job(job: Job, cache: str, left: float) -> dict[str, Any]:
  """Returns the figures of a program, or what went wrong."""
  # A counted program would only take the accelerator's memory.
  platform = {"JAX_PLATFORMS": "cpu"} if job.module == "memory" else {}
  command = [sys.executable, "-m", f"benchmarks.{job.module}", *job.flags]
  done = _run(
    command,
    left,
    # All is kept, however quickly it was compiled.
    JAX_COMPILATION_CACHE_DIR=cache,
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    **platform,
  )
  if isinstance(done, str):
    return {"problem": done}
  line = done.stdout.splitlines()[-1]
  try:
    return json.loads(line)
  except ValueError:
    return {"problem": f"its last line is no JSON: {line[-200:]}"}


def _run_compared(command: str, left: float) -> dict[str, Any]:
  """Returns what another program says in its last line, and its rate."""
  done = _run(shlex.split(command), left)
  if isinstance(done, str):
    return {"problem": done}
  line = done.stdout.splitlines()[-1]
  rate = re.search(r"(\d+(\.\d+)?) images/s", line)
  return {"says": line, "images_per_second": float(rate[1]) if rate else None}


def _run(
  command: list[str], left: float, **variables: str
) -> subprocess.CompletedProcess | str:
  """Runs a program; returns why it gave no result, if it did not."""
  try:
    done = subprocess.run(
      command,
      env=os.environ | variables,
      capture_output=True,
      text=True,
      timeout=left,
      check=False,
    )
  except (OSError, subprocess.TimeoutExpired) as error:
    return f"{type(error).__name__}: {str(error)[-200:]}"
  if done.returncode or not done.stdout.strip():
    last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
    return f"it ended with {done.returncode}: {last[:300]}"
  return done


def _write(folder: pathlib.Path, results: Mapping[str, Any]) -> None:
  """Writes all figures, and a table of the main ones."""
  text = json.dumps(results, indent=2)
  (folder / "accelerator.json").write_text(text + "\n")
  lines = [
    "| | images/s | share of peak | memory, GB | first step, s |",
    "|---|---|---|---|---|",
  ]
  notes = []
  counted = results.get("ResNet-50, counted memory", {})
  if "memory" in counted:
    notes.append(
      f"- ResNet-50, 256: {counted['memory'] / 1e9:.1f} GB are counted by"
      " benchmarks.memory, with inputs of two more batches"
    )
  for name, found in results.items():
    if "problem" in found:
      notes.append(f"- {name}: {found['problem']}")
    elif "images_per_second" in found:
      keys = ("share_of_peak", "peak_memory_gb", "first_step_seconds")
      cells = [found["images_per_second"], *(found.get(key) for key in keys)]
      texts = ["-" if cell is None else f"{cell:,}" for cell in cells]
      lines.append(f"| {name} | {' | '.join(texts)} |")
    if parts := found.get("parts_ms"):
      listed = ", ".join(f"{part} {ms}" for part, ms in parts.items())
      notes.append(f"- {name}, ms of a step: {listed}")
    if errors := found.get("errors_by_step"):
      notes.append(f"- {name}, relative errors by step: {json.dumps(errors)}")
  rates = [
    found["images_per_second"]
    for name, found in results.items()
    if name.startswith("ResNet-50") and found.get("precision") == "bfloat16"
    if "images_per_second" in found
  ]
  for what, bound in _BOUNDS.items() if rates else ():
    notes.append(
      f"- The best ResNet-50 reaches {max(rates) / bound:.2f} {what}"
    )
  device = next((x["device"] for x in results.values() if "device" in x), "")
  (folder / "accelerator.md").write_text(
    "\n".join([f"# {device}", "", *lines, "", *notes, ""])
  )


if __name__ == "__main__":
  main()
