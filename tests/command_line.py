"""Runs the command line as a user would, in a process of its own."""

import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parent.parent

# XLA's flag and value: the second of its four levels of optimisation.
COMPILE_FASTER = ("xla_backend_optimization_level", "1")

# The quickstart, as small as it can be while everything still happens.
TINY = (
  "--config=experiments/quickstart.py",
  "--config.model.encoder.name=TinyResNet",
  "--config.model.encoder.width=0.5",
  "--config.data.image_size=16",
  "--config.train.batch_size=32",
  "--config.evaluation.linear.epochs=1",
  # It compiles as long as the update does; `health_test` has it on.
  "--config.log.diagnose=False",
)


def pretraining(
  workdir: pathlib.Path, *, steps: int, checkpoint_every: int
) -> tuple[str, ...]:
  """Returns the arguments of a tiny run that logs every step."""
  return (
    *TINY,
    f"--workdir={workdir}",
    f"--config.train.steps={steps}",
    f"--config.checkpoint.every_steps={checkpoint_every}",
    "--config.log.every_steps=1",
    "--config.evaluation.protocols=()",
  )


def environment() -> dict[str, str]:
  """Returns this process' environment, for programs that tests start."""
  # They are many, so even quick compilations are cached.
  return os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}


def user_environment() -> dict[str, str]:
  """Returns that environment without the tests' own XLA flag."""
  flag = "--{}={}".format(*COMPILE_FASTER)
  flags = os.environ.get("XLA_FLAGS", "").replace(flag, "")
  return environment() | {"XLA_FLAGS": flags}


def start(
  *args: str, data_dir: str | None = None, devices: int = 1, **variables: str
) -> subprocess.Popen:
  """Starts the program on `devices` virtual CPU devices, compiled as tests are.

  Args:
    *args: of the command line.
    data_dir: tfds' folder of prepared data; None for its default.
    devices: how many.
    **variables: further environment variables.
  """
  env = environment() | variables
  env["JAX_NUM_CPU_DEVICES"] = str(devices)
  if data_dir:
    env["TFDS_DATA_DIR"] = data_dir
  return subprocess.Popen(
    [sys.executable, "-m", "byol_jax.main", *args],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def free_address() -> str:
  """Returns an address of this machine at which nobody listens."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return "127.0.0.1:{1}".format(*free.getsockname())


def start_script_pair(script: str, *args: str) -> list[subprocess.Popen]:
  """Starts two processes of a script, with an address, their index and `args`."""
  address = free_address()
  return [
    subprocess.Popen(
      [sys.executable, "-c", script, address, str(index), *args],
      cwd=ROOT,
      env=environment() | {"JAX_NUM_CPU_DEVICES": "1"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]


def start_pair(*args: str, **kwargs) -> list[subprocess.Popen]:
  """Starts two processes of one run, each with one device."""
  address = free_address()
  return [
    start(
      *args,
      f"--coordinator={address}",
      "--num_processes=2",
      f"--process_id={index}",
      **kwargs,
    )
    for index in range(2)
  ]


def ended(process: subprocess.Popen) -> subprocess.CompletedProcess:
  """Waits until a program ends and returns its exit code and output."""
  stdout, stderr = process.communicate()
  return subprocess.CompletedProcess(
    process.args, process.returncode, stdout, stderr
  )


def run(
  *args: str,
  data_dir: str | None = None,
  devices: int = 1,
  as_users: bool = False,
) -> subprocess.CompletedProcess:
  """Runs a program to its end; see `start`, and `warm_program` for how.

  Args:
    *args: of the command line.
    data_dir: tfds' folder of prepared data; None for its default.
    devices: how many.
    as_users: whether XLA optimises as it does for users, which pays in runs that
      compute for minutes.
  """
  variables = user_environment() if as_users else environment()
  request = {
    "args": args,
    "data_dir": data_dir,
    "devices": devices,
    "xla_flags": variables.get("XLA_FLAGS", ""),
  }
  with _one_request:
    server = _warm_program()
    assert server.stdin
    assert server.stdout
    print(json.dumps(request), file=server.stdin, flush=True)
    reply = json.loads(server.stdout.readline())
  return subprocess.CompletedProcess(args, **reply)


_one_request = threading.Lock()


@functools.cache
def _warm_program() -> subprocess.Popen:
  """Starts the server of `run`, which ends with this process."""
  return subprocess.Popen(
    [sys.executable, "-m", "tests.warm_program"],
    cwd=ROOT,
    # What `cpu.restart_with_huge_pages` sets for a program.
    env=environment() | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


def saved_leaves(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
  """Returns the arrays of a checkpoint by path."""
  folder = workdir / "checkpoints" / str(step) / "default"
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(folder.absolute())


def wait_for(process: subprocess.Popen, file: pathlib.Path, lines: int) -> None:
  """Waits until a file has `lines` lines or the process has ended."""
  while process.poll() is None:
    if file.exists() and file.read_text().count("\n") >= lines:
      return
    time.sleep(0.02)


def run_and_signal(
  *args: str, signum: signal.Signals, when: pathlib.Path, lines: int, **kwargs
) -> subprocess.CompletedProcess:
  """Runs a program that gets a signal once a file has `lines` lines."""
  process = start(*args, **kwargs)
  wait_for(process, when, lines)
  process.send_signal(signum)
  return ended(process)
