"""Writes files so that neither a full disk nor a kill does harm; finds damage.

Only this module, `growing`, `checkpoint_storage` and `buckets` know that a workdir may
be in a bucket: the rest of the program sees paths, some methods of which a `BucketPath`
shares with `pathlib.Path`.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import socket
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any, cast

from absl import logging

from byol_jax import errors
from byol_jax.runtime import buckets


class DamagedError(Exception):
  """A file does not hold what this program wrote; the message says why."""


def to_path(path: str | os.PathLike) -> pathlib.Path:
  """Returns a path on the disk, or in a bucket for `gs://...` and `s3://...`.

  Raises:
    UserError: the scheme of a URL is unknown, or its library is not installed.
  """
  text = str(path)
  if not buckets.is_bucket(text):
    return pathlib.Path(path)
  # The methods that are used here are the same.
  return cast(pathlib.Path, buckets.BucketPath(text))


def is_in_bucket(path: pathlib.Path) -> bool:
  """Returns whether a path of `to_path` is in a bucket."""
  return isinstance(path, buckets.BucketPath)


@contextlib.contextmanager
def report_write_errors(what: object, remedy: str) -> Iterator[None]:
  """Turns an `OSError` inside the block into a `UserError`, unless it is one.

  Args:
    what: is written, for the message "Cannot write {what}: ...".
    remedy: ends the message.
  """
  try:
    yield
  except errors.UserError:  # Of a bucket.
    raise
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
    The path of a temporary file, for the block to write: in the folder of `path`, or for
    a bucket in the system's temporary folder. It takes the place of `path` at the end;
    after an error or a kill the old file stays.
  """
  if isinstance(path, buckets.BucketPath):
    with (
      report_write_errors(path, remedy),
      temporary_folder() as folder,
    ):
      yield pathlib.Path(folder, path.name)
      path.upload(pathlib.Path(folder, path.name))
    return
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


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
  """Makes a folder in the system's temporary one, with the prefix of these names."""
  return tempfile.TemporaryDirectory(
    prefix=f"{temporary_prefix()}{os.getpid()}."
  )


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
    data = path.read_bytes()
  except errors.UserError:  # Of a bucket.
    raise
  except OSError as error:
    reason = error.strerror or error
    raise errors.UserError(
      f"Cannot read {path}: {reason}; make it readable or move it away."
    ) from error
  try:
    found = json.loads(data)
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
    kept.write_bytes(path.read_bytes())
    if rest:
      with atomic_write(path, "") as file:
        file.write_text(rest)
    else:
      path.unlink()


@contextlib.contextmanager
def on_disk(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a file itself, or a copy of an object for the time of the block.

  Raises:
    OSError: the object cannot be read.
  """
  found = to_path(path)
  if not isinstance(found, buckets.BucketPath):
    yield found
    return
  with temporary_folder() as folder:
    copy = pathlib.Path(folder, found.name)
    found.download(copy)
    yield copy


@functools.cache
def scratch(folder: pathlib.Path) -> pathlib.Path:
  """Returns a folder for large files that can be computed again.

  Returns:
    The folder itself, or for a bucket a temporary one of this process.
  """
  if not isinstance(folder, buckets.BucketPath):
    return folder
  temporary = temporary_folder()
  atexit.register(temporary.cleanup)
  return pathlib.Path(temporary.name)


def create(path: pathlib.Path, text: str) -> None:
  """Writes a new file; `FileExistsError` if there is one, also made meanwhile.

  Another program may see it before it is written, except in a bucket.
  """
  if isinstance(path, buckets.BucketPath):
    path.create(text.encode())
    return
  with path.open("x") as file:
    file.write(text)


def remove_exactly(path: pathlib.Path, data: bytes) -> bool:
  """Removes a file of known contents; `FileNotFoundError` without one.

  Returns:
    Whether it was removed. It stays if another program has replaced it; in a bucket,
    not if that happens in the moment between reading and removing it.
  """
  if isinstance(path, buckets.BucketPath):
    is_same = path.read_bytes() == data
    if is_same:
      path.unlink()
    return is_same
  aside = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
  path.rename(aside)
  is_same = aside.read_bytes() == data
  if not is_same:
    with contextlib.suppress(FileExistsError):
      os.link(aside, path)
  aside.unlink()
  return is_same


def touch(path: pathlib.Path) -> None:
  """Changes the time of a file to now, by the clock of its disk or bucket."""
  if isinstance(path, buckets.BucketPath):
    path.write_bytes(path.read_bytes())
  else:
    os.utime(path)


def read_with_time(path: pathlib.Path) -> tuple[bytes, float]:
  """Returns the contents of a file and its time; `FileNotFoundError` without one."""
  if isinstance(path, buckets.BucketPath):
    # The time first: it is then never that of later contents.
    touched = path.modified()
    return path.read_bytes(), touched
  # A shared disk looks up the times of a file anew when it is opened.
  with path.open("rb") as file:
    return file.read(), os.fstat(file.fileno()).st_mtime


def clock(folder: pathlib.Path) -> float:
  """Returns the time at which the disk of a folder says a new file was made."""
  if isinstance(folder, buckets.BucketPath):
    # A new name each time: Google limits how often an object may change.
    file = temporary_path(folder / uuid.uuid4().hex)
    assert isinstance(file, buckets.BucketPath)
    file.write_bytes(b"")
    try:
      return file.modified()
    finally:
      file.unlink(missing_ok=True)
  with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
    return os.fstat(file.fileno()).st_mtime


def make_folder(path: pathlib.Path) -> None:
  """Makes a folder and those above it, which a bucket does not need."""
  if not isinstance(path, buckets.BucketPath):
    path.mkdir(parents=True, exist_ok=True)


def identity(folder: pathlib.Path) -> int:
  """Returns a number that another folder in its place lacks; 0 in a bucket."""
  if isinstance(folder, buckets.BucketPath):
    return 0
  return folder.stat().st_ino
