"""Runs the command line in forks of a process that has imported everything.

The imports of TensorFlow and JAX take most of the time of a tiny run. A server
imports them once, and each run is a fork of it, which is as fresh as a new
process: neither library has started anything before the fork.

python -m tests.warm_program reads one JSON object a line, {"args": [...],
"data_dir": str | null, "devices": int, "xla_flags": str}, and answers each by
{"returncode": int, "stdout": str, "stderr": str}.
"""

import json
import os
import sys
import tempfile
from typing import IO

import jax
from tensorflow_datasets.core import constants

from byol_jax import main
from byol_jax.cli import command as command  # The slow imports.


def serve(requests: IO[str], replies: IO[str]) -> None:
  """Answers requests until there are no more."""
  for line in requests:
    request = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as e:
      pid = os.fork()
      if not pid:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(e.fileno(), 2)
        _become_program(**request)
        return
      _, status = os.waitpid(pid, 0)
      out.seek(0)
      e.seek(0)
      reply = {
        "returncode": os.waitstatus_to_exitcode(status),
        "stdout": out.read(),
        "stderr": e.read(),
      }
    print(json.dumps(reply), file=replies, flush=True)


def _become_program(
  args: list[str], data_dir: str | None, devices: int, xla_flags: str
):
  """Runs the command line as a new process would."""
  os.environ["XLA_FLAGS"] = xla_flags
  # Both libraries read these variables of the environment when imported.
  jax.config.update("jax_num_cpu_devices", devices)
  if data_dir:
    constants.DATA_DIR = data_dir
  sys.argv = ["byol_jax/main.py", *args]
  main.run()


if __name__ == "__main__":
  # Nothing else may write between the replies.
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  serve(sys.stdin, replies)
