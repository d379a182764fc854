"""Lists the files of a folder of images, with their splits and labels."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

# Names of a folder of test images next to a folder `train`. If there are
# several, the last one is used.
_TEST_FOLDERS = ("validation", "valid", "val", "test")


class File(NamedTuple):
  """A file in a folder of images, whatever it holds.

  The names and the order of the fields are part of a cache key; see
  `image_folder.config_name`.

  Attributes:
    path: path relative to the root.
    size: bytes; -1 if the file cannot be read.
    mtime_ns: time of the last change; -1 if the file cannot be read.
    split: train or test.
    label: name of the outermost folder below the split's; empty if there is
      none.
  """

  path: str
  size: int
  mtime_ns: int
  split: str
  label: str


def list_files(root: str, excluded: str) -> list[File]:
  """Returns all files of all splits, sorted by path.

  The folders `train` and `test` are the splits if both exist. If not, all files
  below the root belong to the split train. Names that start with a dot are
  ignored.

  Args:
    root: absolute path of the folder.
    excluded: a folder to leave out, below the root or elsewhere.
  """
  folders = {"train": ""}
  for test in _TEST_FOLDERS:
    if all(os.path.isdir(os.path.join(root, name)) for name in ("train", test)):
      folders = {"train": "train", "test": test}
  files = []
  for split, folder in folders.items():
    for path, size, mtime_ns in _walk(
      root, folder, {os.path.realpath(excluded)}
    ):
      label, *inner = os.path.relpath(path, folder or ".").split(os.sep)
      label = valid_unicode(label) if inner else ""
      files.append(File(path, size, mtime_ns, split, label))
  return sorted(files)


def valid_unicode(path: str) -> str:
  """Returns a path as valid Unicode, which file names on disk need not be."""
  return os.fsencode(path).decode(errors="replace")


def _walk(
  root: str, folder: str, excluded: set[str]
) -> Iterator[tuple[str, int, int]]:
  """Yields (path relative to the root, size, time) of all files in a folder.

  Links are followed, except to a folder that contains the link. A folder that
  cannot be listed is reported like a file that cannot be read.
  """
  real = os.path.realpath(os.path.join(root, folder))
  if real in excluded:
    return
  try:
    names = [name for name in os.listdir(real) if not name.startswith(".")]
  except OSError:
    yield folder, -1, -1
    return
  for path in (os.path.join(folder, name) for name in names):
    try:
      info = os.stat(os.path.join(root, path))
    except OSError:  # For example, a link to a file that does not exist.
      yield path, -1, -1
      continue
    if stat.S_ISDIR(info.st_mode):
      yield from _walk(root, path, excluded | {real})
    else:
      yield path, info.st_size, info.st_mtime_ns
