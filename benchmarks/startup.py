"""Measures the time to the first step, with a cold and a warm cache.

    python -m benchmarks.startup --config=experiments/quickstart.py

The benchmark starts the command line twice with one new compilation cache. It
waits each time for the first line of metrics, stops the program, and prints a
JSON line at the end. An earlier run prepares the data set, if it is not
prepared yet.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

_LOOK_EVERY = 0.05  # Seconds between two looks at the metrics.


def main() -> None:
  """Runs the benchmark for the configuration that the command line names."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--config", default="experiments/quickstart.py")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    at = pathlib.Path(folder)
    _run(options.config, at / "prepare", "--mode=views")
    seconds = {
      name: round(_to_first_step(options.config, at / name, at / "cache"), 1)
      for name in ("cold_seconds", "warm_seconds")
    }
  print(json.dumps({"benchmark": "startup", **vars(options), **seconds}))


def _start(config: str, workdir: pathlib.Path, *flags: str):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "byol_jax.main"),
      *(f"--config={config}", f"--workdir={workdir}", *flags),
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def _run(config: str, workdir: pathlib.Path, *flags: str) -> None:
  if _start(config, workdir, *flags).wait():
    sys.exit(f"Error: --config={config} does not run; try it by itself.")


def _to_first_step(
  config: str, workdir: pathlib.Path, cache: pathlib.Path
) -> float:
  """Returns the seconds from the command to the metrics of the first step."""
  started = time.perf_counter()
  process = _start(
    config,
    workdir,
    "--config.log.every_steps=1",
    f"--config.train.compilation_cache={cache}",
  )
  log = workdir / "metrics.jsonl"
  while not (log.exists() and log.stat().st_size):
    if process.poll() is not None:
      sys.exit(f"Error: --config={config} ended before its first step.")
    time.sleep(_LOOK_EVERY)
  seconds = time.perf_counter() - started
  process.kill()
  process.wait()
  return seconds


if __name__ == "__main__":
  main()
