"""Runs the command line as a user would, in a process of its own."""

import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent

COMPILE_FASTER = "--xla_backend_optimization_level=1"  # Of XLA's four.

# The quickstart, as small as it gets while everything still happens.
TINY = (
  "--config=experiments/quickstart.py",
  "--config.model.encoder.name=TinyResNet",
  "--config.model.encoder.width=0.5",
  "--config.data.image_size=16",
  "--config.train.batch_size=32",
  "--config.evaluation.linear.epochs=1",
)


def start(*args: str, data_dir: str | None = None) -> subprocess.Popen:
  env = os.environ | ({"TFDS_DATA_DIR": data_dir} if data_dir else {})
  env["XLA_FLAGS"] = env["XLA_FLAGS"].replace(COMPILE_FASTER, "")
  return subprocess.Popen(
    [sys.executable, "-m", "byol_jax.main", *args],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(*args: str, **kwargs) -> subprocess.CompletedProcess:
  process = start(*args, **kwargs)
  stdout, stderr = process.communicate()
  return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)


def run_and_signal(
  *args: str, signum: signal.Signals, when: pathlib.Path, lines: int, **kwargs
) -> subprocess.CompletedProcess:
  """Sends a signal as soon as a file has so many lines."""
  process = start(*args, **kwargs)
  while process.poll() is None:
    if when.exists() and when.read_text().count("\n") >= lines:
      process.send_signal(signum)
      break
    time.sleep(0.02)
  stdout, stderr = process.communicate()
  return subprocess.CompletedProcess(args, process.returncode, stdout, stderr)
