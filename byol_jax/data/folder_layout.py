"""Derives splits and classes from the names of folders."""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from byol_jax import errors
from byol_jax.data.folder_scan import File, valid_unicode

# Names that mean a split, in lower case.
_NAMES = {
  "train": ("train", "training"),
  "validation": ("validation", "valid", "val", "dev"),
  "test": ("test", "testing", "eval"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}

# Ends the name of a split whose examples have no label.
UNLABELLED = "_unlabelled"
# The splits that the network is trained on.
TRAINED = ("train", "train" + UNLABELLED)


class Layout(NamedTuple):
  """What the folders of images mean.

  Attributes:
    files: the files to use, with their splits and labels.
    folders: the folder of each split; empty if folders are no splits.
    notes: what a user might not expect, a line each.
  """

  files: list[File]
  folders: Mapping[str, str]
  notes: list[str]


def split_of(name: str) -> str:
  """Returns the split that a name means: train, validation, test or ""."""
  return _SPLIT_OF.get(name.strip().casefold(), "")


def class_name(name: str) -> str:
  """Returns the name of a class as tfds can store it: one line, stripped."""
  text = valid_unicode(name)
  return text.strip() or repr(text)


def arrange(root: str, files: Sequence[File], *, has_classes: bool) -> Layout:
  """Returns the files with the splits and labels that their folders mean.

  Folders are the splits where one means train and another validation or test.
  Otherwise all files belong to train. The outermost folders below the split's,
  or below the root, are the labels. While there is only one folder and it holds
  folders, the same is said of these.

  Args:
    root: absolute path of the root.
    files: all files, without splits and labels.
    has_classes: whether folders are classes; only then notes speak of them.

  Raises:
    UserError: if two folders mean the same split, or there is none to train on.
  """
  paths = [file.path.split(os.sep) for file in files]
  base: list[str] = []
  while True:
    depth = len(base)
    inside = [path for path in paths if path[:depth] == base]
    names = sorted({p[depth] for p in inside if len(p) > depth + 1})
    splits = _split_folders(os.path.join(root, *base), names)
    holds_folders = any(len(path) > depth + 2 for path in inside)
    if splits or len(names) != 1 or not holds_folders:
      break
    base.append(names[0])
  if splits:
    return _by_split(files, paths, depth, splits)
  labelled = []
  for file, path in zip(files, paths, strict=True):
    below = path[depth:] if path[:depth] == base else []
    label = class_name(below[0]) if len(below) > 1 else ""
    labelled.append(file._replace(label=label))
  notes = _class_notes(base, names) if has_classes else []
  return Layout(labelled, {}, notes)


def set_unlabelled_apart(
  files: Sequence[File], *, train_too: bool
) -> list[File]:
  """Returns the files with those without a label in splits of their own.

  Nothing changes if no file to train on has a label.

  Args:
    files: files with splits and labels.
    train_too: whether files without a label leave the split train, too; they
      always leave validation and test, which could not be evaluated with them.
  """
  if all(file.split != "train" or file.label == "" for file in files):
    return list(files)
  return [
    file._replace(split=file.split + UNLABELLED)
    if file.label == "" and (train_too or file.split != "train")
    else file
    for file in files
  ]


def _split_folders(root: str, names: Sequence[str]) -> dict[str, str]:
  """Returns the folder of each split; empty if folders are no splits."""
  found = collections.defaultdict(list)
  for name in names:
    found[split_of(name)].append(name)
  others = found.pop("", [])
  if "train" not in found:
    if len(names) > 1 and not others:
      raise errors.UserError(
        f"{valid_unicode(root)} has folders {_joined(names)}, but none to"
        " train on; call one train, or set root to one of them."
      )
    return {}
  for split, same in found.items():
    if len(same) > 1:
      raise errors.UserError(
        f"{valid_unicode(root)} has folders {_joined(same)}, which mean the same"
        f" split, {split}; rename one or move it elsewhere."
      )
  return (
    {s: found[s][0] for s in _NAMES if s in found} if len(found) > 1 else {}
  )


def _by_split(
  files: Sequence[File],
  paths: Sequence[Sequence[str]],
  depth: int,
  splits: Mapping[str, str],
) -> Layout:
  """Returns the layout where the folders at some depth are the splits."""
  split_of_folder = {folder: split for split, folder in splits.items()}
  kept, outside, folders = [], [], {}
  for file, path in zip(files, paths, strict=True):
    # All folders above are the only ones, so a file this deep is in them.
    if len(path) > depth + 1 and path[depth] in split_of_folder:
      split = split_of_folder[path[depth]]
      label = class_name(path[depth + 1]) if len(path) > depth + 2 else ""
      kept.append(file._replace(split=split, label=label))
      folders[split] = os.sep.join(path[: depth + 1])
    else:
      outside.append(file)
  notes = []
  if outside:
    notes.append(
      f"Note: {len(outside)} files outside of the folders of splits are left out,"
      f" such as {valid_unicode(outside[0].path)}."
    )
  return Layout(kept, {split: folders[split] for split in splits}, notes)


def _class_notes(base: Sequence[str], names: Sequence[str]) -> list[str]:
  """Returns what to tell about folders that are classes."""
  notes = []
  if base and len(names) > 1:
    folder = valid_unicode(os.path.join(*base))
    notes.append(f"The classes are the folders in {folder}/.")
  taken = [name for name in names if split_of(name)]
  if taken and len(names) > 1:
    notes.append(
      f"Note: a folder that is called {_joined(taken)} counts as a class: only train"
      " beside val or test are splits."
    )
  return notes


def _joined(names: Sequence[str]) -> str:
  return " and ".join(map(valid_unicode, names))
