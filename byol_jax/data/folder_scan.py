"""Which files a folder of images holds, and of which split and label each is."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple


class File(NamedTuple):
  """A file below the root of a folder of images."""

  path: str  # Below the root.
  size: int  # -1 if it cannot be read.
  mtime_ns: int
  split: str
  label: str  # The outermost folder in that of the split; empty if none.


def list_files(root: str, ours: str) -> list[File]:
  """Returns all files of all splits, sorted by path."""
  splits = {"train": ""}
  for test in ("validation", "valid", "val", "test"):
    if all(os.path.isdir(os.path.join(root, sub)) for sub in ("train", test)):
      splits = {"train": "train", "test": test}
  files = []
  for split, sub in splits.items():
    for path, size, mtime_ns in _walk(root, sub, {os.path.realpath(ours)}):
      label, *inner = os.path.relpath(path, sub or ".").split(os.sep)
      label = valid_unicode(label) if inner else ""
      files.append(File(path, size, mtime_ns, split, label))
  return sorted(files)


def _walk(
  root: str, sub: str, above: set[str]
) -> Iterator[tuple[str, int, int]]:
  """Yields (path below the root, size, time) of all files in a sub-folder.

  Links are followed, but not to what they lie in. A folder that cannot be
  listed is treated like a file that cannot be read.
  """
  real = os.path.realpath(os.path.join(root, sub))
  if real in above:
    return
  try:
    names = [name for name in os.listdir(real) if not name.startswith(".")]
  except OSError:
    yield sub, -1, -1
    return
  for path in (os.path.join(sub, name) for name in names):
    try:
      info = os.stat(os.path.join(root, path))
    except OSError:  # Such as a link to nowhere.
      yield path, -1, -1
      continue
    if stat.S_ISDIR(info.st_mode):
      yield from _walk(root, path, above | {real})
    elif stat.S_ISREG(info.st_mode):
      yield path, info.st_size, info.st_mtime_ns


def valid_unicode(path: str) -> str:
  """Returns a path as valid Unicode, which names on disk need not be."""
  return os.fsencode(path).decode(errors="replace")
