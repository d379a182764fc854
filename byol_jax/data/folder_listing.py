"""Gives the files of a folder of images their splits and labels."""

import hashlib
import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.config.schema import LABELS
from byol_jax.data import folder_labels, folder_layout, folder_scan
from byol_jax.data.folder_layout import Layout
from byol_jax.data.folder_scan import File, valid_unicode


class Scan(NamedTuple):
  """The files of a folder, or of a list, without their splits and labels.

  Attributes:
    root: absolute path of the folder.
    files: all files, whatever they hold, except the CSV file of labels.
    label_path: absolute path of a CSV file of labels; empty if there is none.
  """

  root: str
  files: list[File]
  label_path: str

  @property
  def label_digest(self) -> str:
    """A checksum of the CSV file; empty if there is none."""
    if not self.label_path:
      return ""
    try:
      with open(self.label_path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
      raise folder_labels.unreadable(self.label_path, error) from error


class Listing(NamedTuple):
  """The files of a folder with their splits and labels.

  Attributes:
    root: absolute path of the folder.
    files: the files to use.
    folders: the folder of each split; empty if folders are no splits.
    wants_labels: whether labels are wanted.
    test_share: the fraction of each class to hold out if there are classes.
    notes: what a user might not expect, a line each.
  """

  root: str
  files: list[File]
  folders: Mapping[str, str]
  wants_labels: bool
  test_share: float
  notes: list[str]


def scan(root: str, labels: str, excluded: str) -> Scan:
  """Lists the files of a folder, or the files that a text file lists.

  Args:
    root: path of the folder or of the list.
    labels: `data.labels`.
    excluded: a folder to leave out.

  Raises:
    UserError: if there is no such folder, list or file of labels.
  """
  root = os.path.abspath(os.path.expanduser(root))
  label_path = ""
  if labels not in LABELS:
    label_path = os.path.abspath(os.path.expanduser(labels))
    if not os.path.isfile(label_path):
      known = [*LABELS, "the path of a CSV file"]
      raise errors.unknown_name("data.labels", labels, known)
  if os.path.isdir(root):
    files = folder_scan.list_files(root, excluded)
  elif os.path.isfile(root):
    root, files = folder_scan.read_list(root)
  else:
    raise errors.UserError(
      f"{root} is not a folder; set root to a folder of images, or to a text"
      " file that lists images."
    )
  inside = folder_scan.paths_below(root, label_path) if label_path else ()
  return Scan(root, [x for x in files if x.path not in inside], label_path)


def arrange(
  found: Scan, options: schema.DataConfig, broken: Collection[str] = ()
) -> Listing:
  """Gives files their splits and labels.

  Folders or files that hold no image change neither splits nor labels. So the
  result is final once the broken files are known.

  Args:
    found: the files.
    options: `labels` and `test_share` are used.
    broken: paths of files to leave out, as valid Unicode.

  Raises:
    UserError: if splits or labels are ambiguous.
  """
  files = [x for x in found.files if valid_unicode(x.path) not in broken]
  table = folder_labels.read(found.label_path) if found.label_path else None
  if table and table.has_splits:  # Folders mean nothing then.
    layout = Layout(files, {}, [])
  else:
    has_classes = options.labels == "folders"
    layout = folder_layout.arrange(found.root, files, has_classes=has_classes)
  if table:
    layout = folder_labels.label_files(layout, found.root, table)
  files = layout.files
  wants_labels = options.labels != "none"
  if wants_labels:
    files = folder_layout.set_unlabelled_apart(files, train_too=bool(table))
  has_test = any(file.split in ("validation", "test") for file in files)
  share = 0.0 if has_test or not wants_labels else options.test_share
  return Listing(
    found.root, files, layout.folders, wants_labels, share, layout.notes
  )
