"""Frozen features: one vector per example of a split."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import numpy as np

from byol_jax.models.encode import Encode
from byol_jax.runtime import processes

# Running batch-norm statistics with decay rate 0.9 average over about
# 1 / (1 - 0.9) = 10 batches; twice as many make the initial zeros negligible.
_CALIBRATION_BATCHES = 20
CALIBRATION_BATCH_SIZE = 64

# Batches with "image" and "label".
Batches = Iterable[Mapping[str, np.ndarray]]


class Features(NamedTuple):
  """The features of a split, in the order of its files.

  Attributes:
    vectors: [N, D] float32; may be memory-mapped.
    labels: [N] int32, -1 where unknown; for multi-label data, [N, C] of 0 and
      1.
  """

  vectors: np.ndarray
  labels: np.ndarray

  def select(self, indices: range | np.ndarray) -> "Features":
    """Returns the features at some indices; for a range, without a copy."""
    where: Any = indices
    if isinstance(indices, range):
      where = slice(indices.start, indices.stop)
    return Features(self.vectors[where], self.labels[where])


def same_class(
  labels: np.ndarray, others: np.ndarray, *, multi_label: bool
) -> np.ndarray:
  """Returns whether pairs of examples have a class in common.

  Args:
    labels: [...] int32; if `multi_label`, [..., C] of 0 and 1.
    others: the same kind of array; the two are broadcast against each other.
    multi_label: whether an example may have more than one class.

  Returns:
    [...] bool.
  """
  if multi_label:
    return np.any((labels > 0) & (others > 0), axis=-1)
  return labels == others


def flatten(images: np.ndarray) -> np.ndarray:
  """Returns images [b, H, W, C] as vectors [b, H * W * C]."""
  return images.reshape(len(images), -1)


def calibrated_state(
  network: hk.TransformedWithState,
  params: hk.Params,
  state: hk.State,
  batches: Batches,
) -> hk.State:
  """Returns batch-norm statistics that fit the data, for an untrained network.

  The initial statistics are zeros, which would scale the activations of the
  baseline arbitrarily and make the trained encoder look better than it is.

  Args:
    network: from `networks.make_network`.
    params: its initial parameters.
    state: its initial batch-norm statistics.
    batches: batches of `CALIBRATION_BATCH_SIZE` images; the first 20 are used.

  Returns:
    The statistics after these batches.
  """

  @jax.jit
  def step(params, state, images):
    return network.apply(params, state, images, is_training=True)[1]

  for batch in itertools.islice(batches, _CALIBRATION_BATCHES):
    state = step(params, state, batch["image"])
  return state


def extract(
  encode: Encode, batches: Batches, count: int | None = None
) -> Iterator[Features]:
  """Yields the features of a stream of examples, batch by batch.

  Args:
    encode: from images to features.
    batches: the examples; each of several processes gives its own slices.
    count: the number of examples in the stream, if its last batch is padded.

  Yields:
    The features of whole batches, in all processes, without padding.
  """
  start = 0
  for batch in batches:
    features = Features(
      processes.all_gather_concat(encode(batch["image"])),
      processes.all_gather_concat(batch["label"]),
    )
    yield features if count is None else features.select(range(count - start))
    start += len(features.labels)
