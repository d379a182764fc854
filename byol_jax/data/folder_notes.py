"""Tells in a few lines what the program made of a folder of images."""

import os
from collections.abc import Sequence

import tensorflow_datasets as tfds

from byol_jax.data.folder_layout import UNLABELLED
from byol_jax.data.folder_listing import Listing
from byol_jax.data.folder_scan import File, valid_unicode

_USES = {
  "train": "trains the network",
  "validation": "chooses hyper-parameters",
  "test": "tests",
}


def describe(
  listing: Listing,
  info: tfds.core.DatasetInfo,
) -> list[str]:
  """Returns what the program made of a folder, a line each.

  Args:
    listing: the files that hold images.
    info: describes the records of these files.
  """
  notes = list(listing.notes)
  has_labels = "label" in info.features
  if bits := info.metadata["bits"]:
    notes.append(
      f"Images of more than 8 bits are scaled from {bits} bits to 8."
    )
  if listing.folders:
    notes.append(_describe_splits(listing, has_labels=has_labels))
  sizes = {name: split.num_examples for name, split in info.splits.items()}
  if has_labels:
    notes.extend(_untrained_classes(listing.files))
  else:
    notes.extend(_why_no_labels(listing))
  if has_labels and listing.test_share and "test" in sizes:
    notes.append(
      f"{sizes['test']} of {sizes['test'] + sizes['train']} labelled images are"
      f" held out for testing (data.test_share={listing.test_share})."
    )
  elif has_labels and listing.test_share:
    notes.append(
      "Note: no image is held out for testing, because no class has two; add images"
      " or a folder test."
    )
  for split, use in (
    ("train", "train the network only"),
    ("validation", "are read by --mode=embed only"),
    ("test", "are read by --mode=embed only"),
  ):
    size = sizes.get(split + UNLABELLED, 0)
    if size:
      notes.append(f"{size} images of {split} have no label; they {use}.")
  return notes


def _untrained_classes(files: Sequence[File]) -> list[str]:
  """Returns a line for each split with classes that train lacks."""

  def classes(split: str) -> set[str]:
    labels = [file.label for file in files if file.split == split]
    return {
      name
      for label in labels
      for name in ([label] if isinstance(label, str) else label)
    }

  trained = classes("train")
  return [
    f"Note: no image to train on has {len(missing)} of the classes of {split}, such as"
    f" {missing[0]}: no classifier can learn them."
    for split in ("validation", "test")
    if (missing := sorted(classes(split) - trained))
  ]


def _why_no_labels(listing: Listing) -> list[str]:
  """Returns a line that says why wanted labels are missing, where some are."""
  if not listing.wants_labels:
    return []
  if all(file.label == "" for file in listing.files):
    return []  # There are no folders, so nobody expects labels.
  outside = [
    file
    for file in listing.files
    if file.label == "" and not file.split.endswith(UNLABELLED)
  ]
  if outside:
    return [
      f"Note: there are no labels, because {len(outside)} images are outside of the"
      f" folders of classes, such as {valid_unicode(outside[0].path)}."
    ]
  return ["Note: there are no labels, because all images have the same."]


def _describe_splits(listing: Listing, *, has_labels: bool) -> str:
  """Returns a line that tells what the folder of each split is used for."""
  uses = []
  for split, folder in listing.folders.items():
    start = folder + os.sep
    final = {
      file.split for file in listing.files if file.path.startswith(start)
    }
    use = _USES[split] if split in final else "has no labels"
    if split == "validation" and all(x.split != "test" for x in listing.files):
      use = _USES["test"]
    if not has_labels and split != "train":
      use = "is read by evaluations that need no labels and by --mode=embed"
    uses.append(f"{valid_unicode(folder)}/ {use}")
  return f"Splits: {', '.join(uses)}."
