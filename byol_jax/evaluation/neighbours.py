"""Nearest neighbours by cosine, in a bank that need not fit in memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import errors
from byol_jax.runtime import devices

# Bank vectors and queries that are on the devices at a time, and the queries
# whose [queries, bank chunk] cosines are formed at once. They bound the memory,
# whatever the size of the bank; our choice.
_BANK_CHUNK, _QUERY_CHUNK, _QUERIES_AT_ONCE = 2**14, 2**14, 256

Neighbours = tuple[np.ndarray, np.ndarray]  # Indices and cosines, [Q, k] each.


def check_k(key: str, k: int, available: int, split: str) -> None:
  """Raises `UserError` if more neighbours are configured than a bank has.

  Args:
    key: the configuration key of `k`.
    k: the number of neighbours.
    available: the number of bank vectors that may be a query's neighbours.
    split: the split expression of the bank.
  """
  if k > available:
    raise errors.UserError(
      f"{key}={k} is more than the {available} neighbours that split"
      f" {split!r} has to offer; lower it to {available} or less."
    )


def l2_normalize(vectors: np.ndarray) -> np.ndarray:
  """Returns vectors [N, D] scaled to length 1; zero vectors stay zero."""
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(norms, 1e-12)


def nearest(
  queries: np.ndarray,
  bank: np.ndarray,
  *,
  k: int,
  self_indices: np.ndarray | None = None,
) -> Neighbours:
  """Returns the nearest bank vectors of each query, best first.

  All local devices search. The bank is read chunk by chunk, so it may be
  memory-mapped. Of equally near vectors, the first counts as nearer.

  Args:
    queries: [Q, D].
    bank: [N, D].
    k: the number of neighbours, at most N, or N - 1 with `self_indices`.
    self_indices: [Q], the index of each query in the bank, if queries are taken
      from it. No query is its own neighbour; an exact duplicate may be.

  Returns:
    Indices into the bank [Q, k] int32, and cosines [Q, k] float32.
  """
  num_found = k if self_indices is None else k + 1
  search = devices.pmap_examples(_with_chunk)
  blocks = [
    _search(
      search, l2_normalize(queries[i : i + _QUERY_CHUNK]), bank, num_found
    )
    for i in range(0, len(queries), _QUERY_CHUNK)
  ]
  indices, cosines = map(np.concatenate, zip(*blocks, strict=True))
  if self_indices is None:
    return indices, cosines
  is_self = indices == self_indices[:, None]
  # A query that its duplicates push out of its own neighbours: drop the last.
  is_self[~is_self.any(axis=1), -1] = True
  return indices[~is_self].reshape(-1, k), cosines[~is_self].reshape(-1, k)


def _search(
  search: Callable[..., Neighbours],
  queries: np.ndarray,
  bank: np.ndarray,
  num_found: int,
) -> Neighbours:
  """Returns the neighbours of one block of queries."""
  best = (
    np.full((len(queries), num_found), -1, np.int32),
    np.full((len(queries), num_found), -np.inf, np.float32),
  )
  size = min(_BANK_CHUNK, len(bank))
  for start in range(0, len(bank), size):
    chunk = l2_normalize(bank[start : start + size])
    # The last chunk is padded: each new shape would be compiled.
    indices = np.arange(start, start + size, dtype=np.int32)
    indices[len(chunk) :] = -1
    chunk = np.pad(chunk, ((0, size - len(chunk)), (0, 0)))
    best = search((chunk, indices), (queries, best))
  return best


def _with_chunk(chunk, examples):
  """Updates the best neighbours of each query with a chunk of the bank."""
  vectors, indices = chunk

  def better(example):
    query, (best, cosines) = example
    # In full float32: in a GPU's TF32, close neighbours would swap.
    new = jnp.matmul(vectors, query, precision=jax.lax.Precision.HIGHEST)
    new = jnp.where(indices >= 0, new, -jnp.inf)
    cosines, i = jax.lax.top_k(
      jnp.concatenate([cosines, new]), cosines.shape[0]
    )
    return jnp.concatenate([best, indices])[i], cosines

  return jax.lax.map(better, examples, batch_size=_QUERIES_AT_ONCE)
