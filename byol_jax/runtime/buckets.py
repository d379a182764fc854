"""Paths in buckets of object storage, with what a workdir needs of `pathlib`.

Objects are written whole or not at all, and have no folders: a folder exists as long
as the name of an object begins with it. Any failure is an `OSError` of one line.
"""

import contextlib
import functools
import glob
import logging
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from byol_jax import errors

# The schemes of `fsspec`, and the extras of setup.py with their libraries.
EXTRAS = {"gs": "gcs", "s3": "s3"}

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)")


class BucketPath(pathlib.PurePosixPath):
  """A path such as `gs://bucket/run`; `files.to_path` makes them.

  The methods are those of `pathlib.Path`.
  """

  def __str__(self) -> str:
    return super().__str__().replace(":/", "://", 1)

  def exists(self) -> bool:
    """Returns whether there is an object of this name, or below it."""
    try:
      self._call("info")
    except FileNotFoundError:
      return False
    return True

  def is_dir(self) -> bool:
    """Returns whether there is an object below this path."""
    return self.exists() and self._call("isdir")

  def glob(self, pattern: str) -> Iterator["BucketPath"]:
    """Yields what matches, in any order."""
    path = f"{glob.escape(str(self))}/{pattern}"
    with _os_errors():
      names = self._filesystem.glob(path)
    scheme = self.parts[0]
    return (type(self)(f"{scheme}//{name}") for name in names)

  def read_bytes(self) -> bytes:
    """Returns the contents of the object."""
    return self._call("cat_file")

  def read_text(self, errors: str = "strict") -> str:
    """Returns the contents of the object, which are UTF-8."""
    return self.read_bytes().decode(errors=errors)

  def write_bytes(self, data: bytes) -> None:
    """Writes the object, or another version of it, at once."""
    with _no_bucket():
      self._call("pipe_file", data)

  def write_text(self, text: str) -> None:
    """Writes the object as UTF-8."""
    self.write_bytes(text.encode())

  def create(self, data: bytes) -> None:
    """Writes the object; `FileExistsError` if there is one, also made meanwhile."""
    with _no_bucket():
      self._call("pipe_file", data, mode="create")

  def modified(self) -> float:
    """Returns when the object was written, in seconds by the bucket's clock."""
    return self._call("modified").timestamp()

  def unlink(self, missing_ok: bool = False) -> None:
    """Removes the object."""
    with contextlib.suppress(*[FileNotFoundError] if missing_ok else []):
      self._call("rm_file")

  def upload(self, local: pathlib.Path) -> None:
    """Copies a file of the disk to the object, at once."""
    with _no_bucket(), _os_errors():
      self._filesystem.put_file(str(local), str(self))

  def download(self, local: pathlib.Path) -> None:
    """Copies the object to a file of the disk."""
    with _os_errors():
      self._filesystem.get_file(str(self), str(local))

  def find(self) -> list["BucketPath"]:
    """Returns all objects below this path, sorted."""
    scheme = self.parts[0]
    names = sorted(self._call("find"))
    return [type(self)(f"{scheme}//{name}") for name in names]

  @property
  def _filesystem(self) -> Any:
    return _filesystem(self.parts[0].rstrip(":"))

  def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a method of the file system with this path."""
    with _os_errors():
      return getattr(self._filesystem, method)(str(self), *args, **kwargs)


def is_bucket(text: str) -> bool:
  """Returns whether a text is a path in a bucket and not one on a disk.

  Raises:
    UserError: its scheme is unknown, or it names no bucket.
  """
  found = _URL.match(text)
  if not found:
    return False
  if found[1] not in EXTRAS:
    known = [f"{scheme}://" for scheme in EXTRAS]
    raise errors.unknown_name(f"In {text}, the scheme", f"{found[1]}://", known)
  if not found[2]:
    raise errors.UserError(
      f"{text} names no bucket; write {found[1]}://BUCKET/FOLDER."
    )
  return True


@functools.cache
def _filesystem(scheme: str) -> Any:
  import fsspec  # Only buckets need it.

  # They log what they also raise, with tracebacks.
  for library in ("gcsfs", "s3fs", "botocore", "aiobotocore", "google"):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  try:
    # Other programs write to the bucket, too, so that listings may not be kept.
    return fsspec.filesystem(scheme, use_listings_cache=False)
  except ImportError as error:
    raise errors.UserError(
      f"{scheme}:// needs a library ({str(error).splitlines()[0]}): pip install"
      f" 'byol_jax[{EXTRAS[scheme]}]'."
    ) from error


@contextlib.contextmanager
def _no_bucket() -> Iterator[None]:
  """Says what it means if an object cannot be found that is to be written."""
  try:
    yield
  except FileNotFoundError as error:
    raise OSError("the bucket does not exist") from error


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
  """Raises every failure as an `OSError` whose message is one line."""
  try:
    yield
  except (errors.UserError, FileNotFoundError, FileExistsError):
    raise
  # Each library has classes of its own, for example for missing credentials.
  except Exception as error:
    text = " ".join(str(error).split()) or type(error).__name__
    raise OSError(text[:300]) from error
