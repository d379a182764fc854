"""Frozen features of a split: what the protocols are run on."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import haiku as hk
import jax
import numpy as np

from byol_jax import parallel

# What settles the running batch-norm statistics of an encoder that was never
# trained: they average over about 1 / (1 - 0.9) = 10 batches.
_CALIBRATION_BATCHES = 20
CALIBRATION_BATCH_SIZE = 64


class Features(NamedTuple):
  """One vector an example, in the order of the files.

  Attributes:
    vectors: [N, D] float32.
    labels: [N] int32.
  """

  vectors: np.ndarray
  labels: np.ndarray


Encode = Callable[[np.ndarray], np.ndarray]  # [b, S, S, 3] to [b, D].


def pixels(images: np.ndarray) -> np.ndarray:
  """The images themselves, as vectors."""
  return images.reshape(len(images), -1)


def encoder(
  network: hk.TransformedWithState, params: hk.Params, state: hk.State
) -> Encode:
  """The frozen encoder, batch norm in inference mode, on all local devices."""

  def embed(variables, images):
    outputs, _ = network.apply(*variables, images, is_training=False)
    return outputs.embedding

  mapped = parallel.pmap_examples(embed)
  return lambda images: mapped((params, state), images)


def calibrated_state(
  network: hk.TransformedWithState,
  params: hk.Params,
  state: hk.State,
  batches: Iterable[Mapping[str, np.ndarray]],
) -> hk.State:
  """Batch-norm statistics that fit the data, for an untrained encoder.

  Without them its activations would be scaled by statistics of nothing, and
  what it is compared with would look better than it is.

  Args:
    network: from `networks.make_network`.
    params: its initial parameters.
    state: its initial state.
    batches: of `CALIBRATION_BATCH_SIZE` images; the first few are used.

  Returns:
    The state after them.
  """

  @jax.jit
  def step(params, state, images):
    return network.apply(params, state, images, is_training=True)[1]

  for batch in itertools.islice(batches, _CALIBRATION_BATCHES):
    state = step(params, state, batch["image"])
  return state


def extract(
  encode: Encode, batches: Iterator[Mapping[str, np.ndarray]]
) -> Features:
  """Features of every example of an evaluation stream, each exactly once."""
  vectors, labels = [], []
  for batch in batches:
    vectors.append(encode(batch["image"]))
    labels.append(batch["label"])
  return Features(np.concatenate(vectors), np.concatenate(labels))
