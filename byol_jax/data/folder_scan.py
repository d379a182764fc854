"""Lists the files of a folder of images, or the files that a list names."""

import os
import re
import stat
from typing import NamedTuple

from byol_jax import errors

# Characters that would break a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class File(NamedTuple):
  """A file in a folder of images, whatever it holds.

  The order of the fields is part of a cache key; see `image_folder.cache_key`.

  Attributes:
    path: path relative to the root.
    size: bytes; -1 if the file cannot be read.
    mtime_ns: time of the last change; -1 if the file cannot be read.
    split: name of the split.
    label: name of the class; empty if there is none. In a data set whose images
      may have several classes, the tuple of their names.
  """

  path: str
  size: int
  mtime_ns: int
  split: str = "train"
  label: str | tuple[str, ...] = ""


def list_files(root: str, excluded: str) -> list[File]:
  """Returns all files below a folder, sorted by path, without labels.

  Names that start with a dot are ignored. Links are followed, except to a folder
  that contains the link. A folder that cannot be listed is reported like a file
  that cannot be read.

  Args:
    root: absolute path of the folder.
    excluded: a folder to leave out, below the root or elsewhere.
  """
  files = []
  # A stack, since folders may lie deeper than Python can recurse: each folder,
  # its real path, and the real paths of the folders that contain it.
  real = os.path.realpath(root)
  pending = [("", real, frozenset({os.path.realpath(excluded)}))]
  while pending:
    folder, real, containing = pending.pop()
    if real in containing:
      continue
    try:
      names = [name for name in os.listdir(real) if not name.startswith(".")]
    except OSError:
      files.append(File(folder, -1, -1))
      continue
    for name in names:
      path, inner = os.path.join(folder, name), os.path.join(real, name)
      file, mode = _stat(root, path)
      if stat.S_ISDIR(mode):
        inner = os.path.realpath(inner) if os.path.islink(inner) else inner
        pending.append((path, inner, containing | {real}))
      else:
        files.append(file)
  return sorted(files)


def read_list(path: str) -> tuple[str, list[File]]:
  """Returns the files that a text file lists, sorted by path, without labels.

  Each line is a path, absolute or relative to the folder of the list. Empty
  lines and lines that start with # are ignored.

  Args:
    path: absolute path of the list.

  Returns:
    The root: the folder of the list or, if a file lies outside of it, the
    innermost folder that contains all files. Then the files; one that is
    missing is reported like a file that cannot be read.

  Raises:
    UserError: if the list is no text or is empty, or a path is neither a file
      nor missing.
  """
  with open(path, "rb") as binary:
    if b"\0" in binary.read(4096):
      raise errors.UserError(
        f"{valid_unicode(path)} is neither a folder nor a text file that lists"
        " images; set root to one of them."
      )
  # File names need not be UTF-8.
  with open(path, encoding="utf-8-sig", errors="surrogateescape") as text:
    lines = [line.strip() for line in text]
  folder = os.path.dirname(path)
  paths = sorted(
    {
      os.path.normpath(os.path.join(folder, line))
      for line in lines
      if line and not line.startswith("#")
    }
  )
  if not paths:
    raise errors.UserError(
      f"{valid_unicode(path)} lists no file; write the path of an image in each"
      " line, or set root to a folder."
    )
  root = folder
  if os.path.commonpath([folder, *paths]) != folder:
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
  files = []
  for relative in (os.path.relpath(path, root) for path in paths):
    file, mode = _stat(root, relative)
    if not stat.S_ISREG(mode):
      raise errors.UserError(
        f"{valid_unicode(os.path.join(root, relative))}, which"
        f" {valid_unicode(path)} lists, is not a file; list files only."
      )
    files.append(file)
  return root, sorted(files)


def valid_unicode(path: str) -> str:
  """Returns a path as one line of Unicode, which file names need not be.

  Bytes that are not UTF-8 become escapes, so that different paths stay different.
  """
  text = os.fsencode(path).decode(errors="backslashreplace")
  return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def paths_below(root: str, path: str) -> set[str]:
  """Returns a path relative to a root, with and without links resolved.

  Either may lead through links to the other. If the path is not below the root,
  the results begin with two dots.
  """
  real = os.path.realpath(path)
  return {
    os.path.relpath(path, root),
    os.path.relpath(real, root),
    os.path.relpath(real, os.path.realpath(root)),
  }


def _stat(root: str, path: str) -> tuple[File, int]:
  """Returns a file and its mode; one that cannot be read counts as regular."""
  full = os.path.join(root, path)
  try:
    info = os.stat(full)
  except (OSError, ValueError):  # For example, a link to a missing file.
    return File(path, -1, -1), stat.S_IFREG
  if stat.S_ISREG(info.st_mode) and not os.access(full, os.R_OK):
    return File(path, -1, -1), info.st_mode
  return File(path, info.st_size, info.st_mtime_ns), info.st_mode
