"""Each start of a training: its command, its code and its machine.

`sessions.json` in the workdir lists them, for reports.
"""

import datetime
import importlib.metadata
import pathlib
import platform
import shlex
import socket
import subprocess
import sys
from typing import Any

import jax

import byol_jax
from byol_jax.runtime import files
from byol_jax.training import workdir_files

_FILE = "sessions.json"
_KEY = "sessions"
# What the numbers of a run depend on.
_PACKAGES = (
  "jax",
  "jaxlib",
  "dm-haiku",
  "optax",
  "numpy",
  "tensorflow-cpu",
  "tensorflow",
  "tensorflow-datasets",
)
_GIT_SECONDS = 10  # Our choice: a slow disk must not delay a training.


def record(workdir: pathlib.Path, step: int) -> None:
  """Adds this process to `sessions.json`.

  Args:
    workdir: is created.
    step: that training goes on from.

  Raises:
    UserError: the file cannot be read or written.
  """
  session = {
    "step": step,
    "started": datetime.datetime.now(datetime.UTC).isoformat(
      timespec="seconds"
    ),
    "command": shlex.join(sys.orig_argv),
    "host": socket.gethostname(),
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "processes": jax.process_count(),
    "commit": _commit(),
    "versions": _versions(),
  }
  path = workdir / _FILE
  workdir_files.write_json(path, {_KEY: [*read(workdir), session]})


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns what `record` has written, the first start first.

  Returns:
    A dictionary per start with the step, the time, the command, the machine, the
    commit (None outside a checkout) and the versions; [] without the file, as in
    workdirs of earlier versions. A damaged file is kept as `sessions.json.damaged`.
  """
  path = workdir / _FILE
  if not path.exists():
    return []
  try:
    sessions = files.read_json(path).get(_KEY)
    if not isinstance(sessions, list) or not all(map(_is_session, sessions)):
      raise files.DamagedError("it lists no sessions")
  except files.DamagedError as error:
    files.set_aside(path, error, "")
    return []
  return sessions


def _is_session(entry: Any) -> bool:
  kinds = {
    int: ("step", "devices", "processes"),
    str: ("started", "command", "host", "device"),
    dict: ("versions",),
    str | None: ("commit",),
  }
  return isinstance(entry, dict) and all(
    key in entry and isinstance(entry[key], kind)
    for kind, keys in kinds.items()
    for key in keys
  )


def _versions() -> dict[str, str]:
  """Returns the versions of Python, this package and what it computes with."""
  found = {
    "python": platform.python_version(),
    "byol_jax": byol_jax.__version__,
  }
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def _commit() -> str | None:
  """Returns the commit of this code, with "-dirty" if it was changed."""
  package = pathlib.Path(__file__).parent.parent

  def git(*args: str) -> str:
    return subprocess.run(
      ["git", "-C", package, *args],
      capture_output=True,
      text=True,
      check=True,
      timeout=_GIT_SECONDS,
    ).stdout.strip()

  try:
    # An installed package may lie in somebody else's checkout.
    git("ls-files", "--error-unmatch", "__init__.py")
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
  except (OSError, subprocess.SubprocessError):
    return None
