"""Runs the command line as a user would, in a process of its own."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp

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


def start(
  *args: str, data_dir: str | None = None, devices: int = 1, **variables: str
) -> subprocess.Popen:
  """A program with so many virtual devices and environment variables."""
  env = os.environ | variables | {"JAX_NUM_CPU_DEVICES": str(devices)}
  # Programs start many times here: what compiles fast is kept for the next, too.
  env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
  if data_dir:
    env["TFDS_DATA_DIR"] = data_dir
  env["XLA_FLAGS"] = env["XLA_FLAGS"].replace(COMPILE_FASTER, "")
  return subprocess.Popen(
    [sys.executable, "-m", "byol_jax.main", *args],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def start_pair(*args: str, **kwargs) -> list[subprocess.Popen]:
  """Two processes that make one run, a device each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = "127.0.0.1:{1}".format(*free.getsockname())
  return [
    start(
      *args,
      f"--coordinator={address}",
      "--num_processes=2",
      f"--process_id={index}",
      JAX_COORDINATOR_BIND_ADDRESS=address,  # Else it is open to the network.
      **kwargs,
    )
    for index in range(2)
  ]


def ended(process: subprocess.Popen) -> subprocess.CompletedProcess:
  """Waits for the end."""
  stdout, stderr = process.communicate()
  return subprocess.CompletedProcess(
    process.args, process.returncode, stdout, stderr
  )


def run(*args: str, **kwargs) -> subprocess.CompletedProcess:
  return ended(start(*args, **kwargs))


def saved_leaves(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """What a checkpoint of a run holds."""
  folder = workdir / "checkpoints" / str(step) / "default"
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder.absolute())


def wait_for(process: subprocess.Popen, file: pathlib.Path, lines: int) -> None:
  """Waits until a file has so many lines, or the process has ended."""
  while process.poll() is None:
    if file.exists() and file.read_text().count("\n") >= lines:
      return
    time.sleep(0.02)


def run_and_signal(
  *args: str, signum: signal.Signals, when: pathlib.Path, lines: int, **kwargs
) -> subprocess.CompletedProcess:
  """Sends a signal as soon as a file has so many lines."""
  process = start(*args, **kwargs)
  wait_for(process, when, lines)
  process.send_signal(signum)
  return ended(process)
