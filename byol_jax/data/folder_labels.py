"""Reads the labels of images, and their splits, from a CSV file."""

import collections
import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import PIL.Image

from byol_jax import errors
from byol_jax.data.folder_layout import Layout, class_name, split_of
from byol_jax.data.folder_scan import File, paths_below, valid_unicode

# Names of columns in lower case, the first one that a file has counts. Our
# choice: those of the label files that Kaggle and pandas users write.
_FILES = (
  *("file", "filename", "file_name", "path", "filepath", "file_path", "image"),
  *("image_path", "image_name", "image_id", "name", "id"),
)
_LABELS = (
  *("label", "labels", "class", "classes", "class_name", "category", "target"),
)
_SPLITS = ("split",)
# Separate the classes of an image in one cell.
_SEPARATORS = re.compile(r"[|;]")


class _Row(NamedTuple):
  """A row of the file: where it stands, and what it says of an image."""

  line: int
  file: str
  labels: list[str]
  split: str


class Table(NamedTuple):
  """A CSV file of labels.

  Attributes:
    shown: its path for messages.
    guessed: the name of the column that is taken for files; empty if known.
    rows: its rows.
    has_splits: whether rows name splits.
    notes: what to tell, a line each.
  """

  shown: str
  guessed: str
  rows: list[_Row]
  has_splits: bool
  notes: list[str]


def label_files(layout: Layout, root: str, table: Table) -> Layout:
  """Returns the files with the labels and splits that a CSV file gives them.

  If any image has several labels, all labels are tuples. A column `split`
  replaces the splits of the folders.

  Args:
    layout: all files, with the splits of their folders.
    root: absolute path of the root.
    table: the CSV file.

  Returns:
    The layout with these labels, "" where the CSV file gives none.

  Raises:
    UserError: if the CSV file names none of the files, or contradicts itself.
  """
  labels, splits, missing = _match(table, _finder(layout.files, root))
  shown = table.shown
  example = f", such as {_short(missing[0])}" if missing else ""
  if not labels:
    raise errors.UserError(
      f"none of the {len(table.rows)} rows of {shown} names an image in"
      f" {valid_unicode(root)}{example}; write paths relative to root."
    )
  notes = [*layout.notes, *table.notes]
  if table.has_splits:
    notes.append(f"The splits are those of the column split of {shown}.")
  if missing:
    notes.append(
      f"Note: {len(missing)} rows of {shown} name no usable image in"
      f" {valid_unicode(root)}{example}."
    )
  several = sum(len(names) > 1 for names in labels.values())
  if several:
    notes.append(f"{several} images have several classes.")

  def labelled(file: File) -> File:
    split = splits.get(file.path, "train") if table.has_splits else file.split
    if file.path not in labels:
      return file._replace(split=split, label="")
    names = tuple(labels[file.path])
    return file._replace(
      split=split, label=names if several else "".join(names)
    )

  files = [labelled(file) for file in layout.files]
  if all(file.split != "train" or file.label == "" for file in files):
    raise errors.UserError(
      f"{shown} labels no image of the split train; add some, or set"
      " data.labels=none."
    )
  return Layout(files, {} if table.has_splits else layout.folders, notes)


def _match(
  table: Table, find: Callable[[str], str | None]
) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
  """Returns classes and splits by the paths of files, and names without a file.

  Raises:
    UserError: if rows contradict each other, or the first one is no header.
  """
  if table.guessed and find(table.guessed) is not None:
    raise errors.UserError(
      f"{table.shown} begins with a row for {_short(table.guessed)}; write"
      " the names of the columns above it, such as file,label."
    )
  labels: dict[str, list[str]] = {}
  splits: dict[str, str] = {}
  missing = []
  for row in table.rows:
    path = find(row.file)
    if path is None:
      missing.append(row.file)
      continue
    known = labels.setdefault(path, [])
    known.extend(
      name for name in dict.fromkeys(row.labels) if name not in known
    )
    if splits.setdefault(path, row.split) != row.split:
      raise errors.UserError(
        f"{table.shown}, line {row.line}: {_short(row.file)} is in split"
        f" {row.split} here and in {splits[path]} above; give it one split."
      )
  return labels, splits, missing


def _finder(files: Sequence[File], root: str) -> Callable[[str], str | None]:
  """Returns a function from a name in a CSV file to a path, None if missing."""
  exact = {valid_unicode(file.path): file.path for file in files}
  endings = PIL.Image.registered_extensions()
  stems = collections.defaultdict(list)
  for file in files:
    stems[os.path.splitext(valid_unicode(file.path))[0]].append(file.path)

  def find(name: str) -> str | None:
    path = os.path.normpath(name.replace("\\", "/"))
    paths = paths_below(root, path) if os.path.isabs(path) else {path}
    names = set(map(valid_unicode, paths))
    if known := names & exact.keys():
      return exact[known.pop()]
    # An annotation may lie beside its image. Two images whose names differ in
    # their ending cannot be told apart.
    found = [path for stem in names for path in stems.get(stem, ())]
    if len(found) > 1:
      found = [x for x in found if os.path.splitext(x)[1].lower() in endings]
    return found[0] if len(found) == 1 else None

  return find


def read(path: str) -> Table:
  """Reads a CSV file of labels.

  The file begins with the names of its columns. A row holds the path of a file
  relative to the root, with or without its ending, and a label; several are
  separated by | or ;, or stand in rows of their own.

  Args:
    path: path of the CSV file.

  Raises:
    UserError: if the file cannot be read or lacks columns.
  """
  shown = valid_unicode(path)
  lines = _read_lines(path)
  header = lines[0][1] if lines else []
  columns = [name.strip().lower().replace(" ", "_") for name in header]
  split_at = _column(columns, _SPLITS)
  free = [i for i in range(len(columns)) if i != split_at]
  if len(free) < 2:
    raise errors.UserError(
      f"{shown} begins with {_short(','.join(header))!r}, which is not the names"
      " of a column of files and one of labels; write a header such as file,label"
      " and a row for each image."
    )
  file_at, label_at = _column(columns, _FILES), _column(columns, _LABELS)
  guessed, notes = "", []
  if file_at is None or label_at is None:
    if file_at is None:
      file_at = next(i for i in free if i != label_at)
      guessed = header[file_at]
    if label_at is None:
      label_at = next(i for i in free if i != file_at)
    names = [_short(header[i]) for i in (file_at, label_at)]
    notes.append(
      f"{shown}: column {names[0]!r} is taken for files and {names[1]!r} for"
      " labels."
    )
  rows = []
  for line, cells in lines[1:]:
    cells = [cell.strip() for cell in cells] + [""] * len(columns)
    named = filter(str.strip, _SEPARATORS.split(cells[label_at]))
    split = "" if split_at is None else _split(shown, line, cells[split_at])
    rows.append(_Row(line, cells[file_at], list(map(class_name, named)), split))
  return Table(shown, guessed, rows, split_at is not None, notes)


def _split(shown: str, line: int, name: str) -> str:
  """Returns the split that a cell means: train if it is empty."""
  if name and not split_of(name):
    raise errors.UserError(
      f"{shown}, line {line}: split {_short(name)!r} is unknown; use"
      " train, val or test."
    )
  return split_of(name) or "train"


def _read_lines(path: str) -> list[tuple[int, list[str]]]:
  """Returns the rows of a CSV file that are not empty, with their lines."""
  try:
    with open(path, newline="", encoding="utf-8-sig") as file:
      text = file.read()
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [
      (reader.line_num, row) for row in reader if any(map(str.strip, row))
    ]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> errors.UserError:
  """Returns the error to raise for a CSV file that cannot be read."""
  reason = getattr(error, "strerror", None) or " ".join(str(error).split())
  return errors.UserError(
    f"{valid_unicode(path)} cannot be read as CSV in UTF-8 ({reason}); set"
    " data.labels to a CSV file with the columns file and label."
  )


def _short(text: str) -> str:
  """Returns the start of a cell, for messages."""
  return valid_unicode(text[:80])


def _column(columns: Sequence[str], names: Sequence[str]) -> int | None:
  """Returns the index of the column of the first name that there is."""
  return next((columns.index(name) for name in names if name in columns), None)
