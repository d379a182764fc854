"""Examples of a data set in the form that evaluations see, read for a report."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from byol_jax.data.source import Source
from byol_jax.training import data_streams, runs


class Images(NamedTuple):
  """Examples in the form that evaluations see.

  Attributes:
    images: [..., H, W, 3 or 1] in [0, 1].
    labels: [...], -1 where unknown; for multi-label data, [..., C] of 0 and 1.
  """

  images: np.ndarray
  labels: np.ndarray


def read(
  run: runs.Run, source: Source, split: str, indices: np.ndarray
) -> Images:
  """Returns some examples of a split.

  Args:
    run: says how images are cropped and scaled.
    source: the data set.
    split: tfds split expression.
    indices: of any shape, into the split.

  Returns:
    The examples, with the shape of `indices` before that of each.
  """
  wanted, order = np.unique(indices, return_inverse=True)
  first = range(int(wanted[-1]) + 1)
  batches = data_streams.eval_batches(run.config, source, split, indices=first)
  stream = itertools.chain.from_iterable(
    zip(batch["image"], batch["label"], strict=True) for batch in batches
  )
  is_wanted = np.isin(np.arange(len(first)), wanted)
  images, labels = zip(*itertools.compress(stream, is_wanted), strict=True)
  order = order.reshape(np.shape(indices))
  return Images(np.stack(images)[order], np.stack(labels)[order])


def class_text(label: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns the name of a label, or the names of several classes."""
  classes = np.flatnonzero(label).tolist() if np.ndim(label) else [int(label)]
  return " ".join(", ".join(class_names[i] for i in classes if i >= 0).split())
