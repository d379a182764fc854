"""Writes files so that neither a full disk nor a kill does harm; finds damage."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator
from typing import Any

from absl import logging

from byol_jax import errors


class DamagedError(Exception):
  """A file does not hold what this program wrote; the message says why."""


@contextlib.contextmanager
def report_write_errors(what: object, remedy: str) -> Iterator[None]:
  """Turns an `OSError` inside the block into a `UserError`.

  Args:
    what: is written, for the message "Cannot write {what}: ...".
    remedy: ends the message.
  """
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise errors.UserError(
      f"Cannot write {what}: {reason}; {remedy}."
    ) from error


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, remedy: str) -> Iterator[pathlib.Path]:
  """Replaces a file at once when the block ends, or not at all.

  Args:
    path: of the file; missing folders above it are made.
    remedy: ends the message of the `UserError` that a failure to write raises.

  Yields:
    The path of a temporary file in the folder of `path`, for the block to write. It takes
    the place of `path` at the end; after an error or a kill the old file stays.
  """
  temporary = temporary_path(path)
  with report_write_errors(path, remedy):
    # A file in the place of a folder shows in the error of the block's write.
    with contextlib.suppress(FileExistsError):
      path.parent.mkdir(parents=True)
    try:
      yield temporary
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)


def temporary_path(path: pathlib.Path) -> pathlib.Path:
  """Returns the name under which this process writes a file or a folder."""
  return path.with_name(f"{temporary_prefix()}{os.getpid()}.{path.name}")


def temporary_prefix() -> str:
  """Returns what stands before the process id in these names, on this machine.

  Containers may share a host name, but not the namespace of their process ids.
  """
  digest = hashlib.sha256(machine().encode()).hexdigest()[:8]
  return f".{socket.gethostname()}-{digest}."


def machine() -> str:
  """Returns where the id of this process means something.

  That is the boot of the host and the namespace of the process id; "" where the
  system does not tell.
  """
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:  # Not Linux.
    return ""


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file.

  Raises:
    DamagedError: the file holds something else.
    UserError: it cannot be read.
  """
  try:
    found = json.loads(path.read_bytes())
  except OSError as error:
    raise errors.UserError(
      f"Cannot read {path}: {error.strerror}; make it readable or move it away."
    ) from error
  except (ValueError, RecursionError) as error:
    raise DamagedError("it is not JSON") from error
  if not isinstance(found, dict):
    raise DamagedError("it holds no JSON object")
  return found


def set_aside(path: pathlib.Path, reason: object, rest: str) -> None:
  """Keeps a damaged file as NAME.damaged, and says so in one line.

  Args:
    path: of the file. Where nothing can be written, it stays as it is.
    reason: says what is damaged.
    rest: the undamaged contents, which take its place; without them it has none.
  """
  kept = path.with_name(f"{path.name}.damaged")
  logging.warning("%s is damaged: %s; see %s.", path, reason, kept.name)
  with contextlib.suppress(OSError, errors.UserError):
    shutil.copyfile(path, kept)
    if rest:
      with atomic_write(path, "") as file:
        file.write_text(rest)
    else:
      path.unlink()
