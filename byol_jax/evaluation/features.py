"""Frozen features of a split, and which of them lie nearest to which."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import parallel

# What settles the running batch-norm statistics of an encoder that was never
# trained: they average over about 1 / (1 - 0.9) = 10 batches.
_CALIBRATION_BATCHES = 20
CALIBRATION_BATCH_SIZE = 64

_CHUNK = 256  # Queries at a time: bounds the [queries, bank] similarities.


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


def unit(vectors: np.ndarray) -> np.ndarray:
  """The vectors [N, D] at length one; those of length zero as they are."""
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(norms, 1e-12)


def nearest(
  queries: np.ndarray,
  bank: np.ndarray,
  *,
  k: int,
  own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """The nearest vectors of a bank by cosine, best first, on all local devices.

  Args:
    queries: [Q, D].
    bank: [N, D].
    k: how many, at most N, or N - 1 with `own`.
    own: [Q], the place of each query in the bank if it is one of it: what lies
      there is not its neighbour, though an exact duplicate may be.

  Returns:
    Places in the bank [Q, k] int32, and cosines [Q, k] float32.
  """
  found = k if own is None else k + 1

  def search(bank, queries):
    # In full float32, not in a GPU's TF32, in which close neighbours swap.
    cosines = jnp.matmul(queries, bank.T, precision=jax.lax.Precision.HIGHEST)
    return jax.lax.top_k(cosines, found)[1]

  queries, bank = unit(queries), unit(bank)
  mapped, on_devices = parallel.pmap_examples(search), jax.device_put(bank)
  starts = range(0, len(queries), _CHUNK)
  places = np.concatenate(
    [mapped(on_devices, queries[i : i + _CHUNK]) for i in starts]
  )
  if own is not None:
    is_own = places == own[:, None]
    # Hidden behind its duplicates: then the last is the one too many.
    is_own[~is_own.any(axis=1), -1] = True
    places = places[~is_own].reshape(-1, k)
  pairs = zip(queries, places, strict=True)
  return places, np.stack([bank[near] @ query for query, near in pairs])
