"""Lists a folder of images with its splits and labels, before any is read."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.data import folder_labels, folder_layout, folder_scan
from byol_jax.data.folder_scan import File

LABELS = ("folders", "none")  # Or the path of a CSV file.


class Listing(NamedTuple):
  """The files of a folder before any of them is read.

  Attributes:
    root: absolute path of the folder.
    files: all files with their splits and labels.
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


def list_folder(
  root: str, options: schema.DataConfig, excluded: str
) -> Listing:
  """Returns the files of a folder, or of a list, with splits and labels.

  Args:
    root: path of the folder, or of a text file that lists images.
    options: `labels` and `test_share` are used.
    excluded: a folder to leave out.

  Raises:
    UserError: if there is no such folder, or its splits or labels are ambiguous.
  """
  root = os.path.abspath(os.path.expanduser(root))
  label_path = ""
  if options.labels not in LABELS:
    label_path = os.path.abspath(os.path.expanduser(options.labels))
    if not os.path.isfile(label_path):
      known = [*LABELS, "the path of a CSV file"]
      raise errors.unknown_name("data.labels", options.labels, known)
  if os.path.isdir(root):
    files = folder_scan.list_files(root, excluded)
  elif os.path.isfile(root):
    root, files = folder_scan.read_list(root)
  else:
    raise errors.UserError(
      f"{root} is not a folder; set root to a folder of images, or to a text"
      " file that lists images."
    )
  has_classes = options.labels == "folders"
  layout = folder_layout.arrange(root, files, has_classes=has_classes)
  if label_path:
    inside = os.path.relpath(label_path, root)
    images = [file for file in layout.files if file.path != inside]
    layout = folder_labels.label_files(
      layout._replace(files=images), root, label_path
    )
  files = layout.files
  wants_labels = options.labels != "none"
  if wants_labels:
    files = folder_layout.set_unlabelled_apart(
      files, train_too=bool(label_path)
    )
  files = folder_layout.set_test_split(files)
  has_test = any(file.split == "test" for file in files)
  share = 0.0 if has_test or not wants_labels else options.test_share
  return Listing(root, files, layout.folders, wants_labels, share, layout.notes)
