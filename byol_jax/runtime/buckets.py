"""Paths in buckets of object storage, with what a workdir needs of `pathlib`.

Objects are written whole or not at all, and have no folders: a folder exists as long
as the name of an object begins with it. A missing object raises `FileNotFoundError`, one
that may not be there `FileExistsError`, and any other failure `BucketError`.
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


class BucketError(errors.UserError, OSError):
  """An object cannot be read or written, after the library has tried several times.

  Attributes:
    strerror: what the library says, in one line.
  """

  def __init__(self, path: object, reason: str):
    super().__init__(
      f"{path} cannot be used: {reason}; check its name, your credentials and the"
      " network, and run the same command again."
    )
    self.strerror = reason


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
    with self._errors():
      names = self._filesystem.glob(path)
    return map(self._named, names)

  def read_bytes(self) -> bytes:
    """Returns the contents of the object."""
    return self._call("cat_file")

  def read_text(self, errors: str = "strict") -> str:
    """Returns the contents of the object, which are UTF-8."""
    return self.read_bytes().decode(errors=errors)

  def write_bytes(self, data: bytes) -> None:
    """Writes the object, or another version of it, at once."""
    with self._errors(writes=True):
      self._filesystem.pipe_file(str(self), data)

  def write_text(self, text: str) -> None:
    """Writes the object as UTF-8."""
    self.write_bytes(text.encode())

  def create(self, data: bytes) -> None:
    """Writes the object; `FileExistsError` if there is one, also made meanwhile."""
    with self._errors(writes=True):
      self._filesystem.pipe_file(str(self), data, mode="create")

  def modified(self) -> float:
    """Returns when the object was written, in seconds by the bucket's clock."""
    return self._call("modified").timestamp()

  def unlink(self, missing_ok: bool = False) -> None:
    """Removes the object."""
    with contextlib.suppress(*[FileNotFoundError] if missing_ok else []):
      self._call("rm_file")

  def upload(self, local: pathlib.Path) -> None:
    """Copies a file of the disk to the object, at once."""
    with self._errors(writes=True):
      self._filesystem.put_file(str(local), str(self))

  def download(self, local: pathlib.Path) -> None:
    """Copies the object to a file of the disk."""
    with self._errors():
      self._filesystem.get_file(str(self), str(local))

  def find(self) -> list["BucketPath"]:
    """Returns all objects below this path, sorted."""
    return [self._named(name) for name in sorted(self._call("find"))]

  @property
  def _filesystem(self) -> Any:
    return _filesystem(self.parts[0].rstrip(":"))

  def _named(self, name: str) -> "BucketPath":
    """Returns the path of an object by the name that `fsspec` gives it."""
    return type(self)(f"{self.parts[0]}//{name}")

  def _call(self, method: str) -> Any:
    """Calls a method of the file system with this path."""
    with self._errors():
      return getattr(self._filesystem, method)(str(self))

  @contextlib.contextmanager
  def _errors(self, *, writes: bool = False) -> Iterator[None]:
    """Raises what the module says; nothing is missing for a write but the bucket."""
    try:
      yield
    except (errors.UserError, FileExistsError):
      raise
    except FileNotFoundError as error:
      if writes:
        raise BucketError(self, "the bucket does not exist") from error
      raise
    # Each library has classes of its own, for example for missing credentials.
    except Exception as error:
      text = " ".join(str(error).split()) or type(error).__name__
      raise BucketError(self, text[:300].rstrip(".")) from error


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
  # They log what they also raise, with tracebacks.
  for library in ("gcsfs", "s3fs", "botocore", "aiobotocore", "google"):
    logging.getLogger(library).setLevel(logging.CRITICAL)
  try:
    import fsspec  # Only buckets need it.

    # Other programs write to the bucket, too, so that listings may not be kept.
    return fsspec.filesystem(scheme, use_listings_cache=False)
  except ImportError as error:
    raise errors.UserError(
      f"{scheme}:// needs a library ({str(error).splitlines()[0]}): pip install"
      f" 'byol_jax[{EXTRAS[scheme]}]'."
    ) from error
