"""Where checkpoints lie: in a folder of a disk, or in a bucket.

Orbax writes to folders of a disk only, except for Google's buckets, so that for any
bucket it works in a temporary folder, and whole checkpoints are copied. They look in
the bucket as they do on a disk, and may be copied from one to the other.
"""

import concurrent.futures
import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterable
from typing import Protocol

from byol_jax.runtime import buckets, files

# The file that orbax writes into each checkpoint, which is copied last and removed
# first: a checkpoint of a bucket is complete if it has one.
_MARK = "_CHECKPOINT_METADATA"


def steps(directory: pathlib.Path) -> list[int]:
  """Returns the steps of the complete checkpoints in a directory, in any order."""
  if isinstance(directory, buckets.BucketPath):
    return _steps(directory)
  return _numbers(path.name for path in directory.glob("*"))


def _steps(directory: buckets.BucketPath) -> list[int]:
  return _numbers(path.parent.name for path in directory.glob(f"*/{_MARK}"))


def _numbers(names: Iterable[str]) -> list[int]:
  return [int(name) for name in names if name.isdigit()]


class Storage(Protocol):
  """Keeps the checkpoints of a directory.

  Attributes:
    folder: on this machine's disk, where they are written and read. It holds a
      folder for each checkpoint, which may be empty until `fetch`.
  """

  folder: pathlib.Path

  def fetch(self, step: int) -> None:
    """Fills the folder of a checkpoint; raises `BucketError` if it cannot be read."""

  def store(self, wait: Callable[[], None]) -> None:
    """Begins to make the directory like `folder`, after `wait` in a thread."""

  def wait(self) -> None:
    """Waits for `store`; raises its error, such as a `BucketError`."""

  def close(self) -> None:
    """Removes what is temporary."""


def open_storage(directory: pathlib.Path) -> Storage:
  """Returns the storage of a directory, which only `store` writes to."""
  if isinstance(directory, buckets.BucketPath):
    return _Bucket(directory)
  return _Disk(directory)


class _Disk:
  """Checkpoints in a folder of a disk, which need no copies."""

  def __init__(self, directory: pathlib.Path):
    self.folder = directory.absolute()

  def fetch(self, step: int) -> None:
    del step

  def store(self, wait: Callable[[], None]) -> None:
    del wait

  def wait(self) -> None:
    pass

  def close(self) -> None:
    pass


class _Bucket:
  """Checkpoints in a bucket, and a temporary folder for the one in use."""

  def __init__(self, directory: buckets.BucketPath):
    self._directory = directory
    self._temporary = files.temporary_folder()
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._stored: concurrent.futures.Future[None] | None = None
    self.folder = pathlib.Path(self._temporary.name)
    # What is in the bucket, whole or not. A program that another one has replaced in
    # the meantime must not remove what it does not know.
    self._known = {path.name for path in directory.glob("*")}
    for step in _steps(directory):
      (self.folder / str(step)).mkdir()

  def fetch(self, step: int) -> None:
    folder, source = self.folder / str(step), self._directory / str(step)
    if any(folder.iterdir()):
      return
    for path in source.find():
      copy = folder / path.relative_to(source)
      copy.parent.mkdir(parents=True, exist_ok=True)
      # Another program may just have deleted this checkpoint.
      with contextlib.suppress(FileNotFoundError):
        path.download(copy)

  def store(self, wait: Callable[[], None]) -> None:
    def work() -> None:
      wait()
      self._store()

    self._stored = self._thread.submit(work)

  def wait(self) -> None:
    if self._stored:
      self._stored.result()

  def close(self) -> None:
    self._thread.shutdown()
    self._temporary.cleanup()

  def _store(self) -> None:
    """Copies new checkpoints and removes those that are no longer kept."""
    kept = {path.name for path in self.folder.iterdir()}
    for name in sorted(kept):
      self._copy(self.folder / name)
    for name in self._known - kept:
      if name.isdigit():
        self._remove(name)
    self._known = kept

  def _copy(self, folder: pathlib.Path) -> None:
    """Copies a checkpoint, unless it is in the bucket, and empties its folder."""
    local = [path for path in folder.rglob("*") if path.is_file()]
    if not local:
      return
    self._remove(folder.name)  # What a killed run may have begun to copy.
    for path in sorted(local, key=lambda path: path == folder / _MARK):
      (self._directory / path.relative_to(self.folder).as_posix()).upload(path)
    shutil.rmtree(folder)
    folder.mkdir()

  def _remove(self, name: str) -> None:
    (self._directory / name / _MARK).unlink(missing_ok=True)
    for path in (self._directory / name).find():
      path.unlink(missing_ok=True)
