"""Which vectors of a bank lie nearest to which queries."""

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.runtime import devices

# Vectors of the bank, and queries, that are on the devices at a time, and how
# many of the queries form their [queries, bank] cosines at once: what bounds the
# memory, whatever the bank's size.
_BANK, _QUERIES, _AT_ONCE = 2**14, 2**14, 256


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

  The bank is read chunk by chunk, so that it may lie in a file; of equally near
  ones, the first counts as nearer.

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
  search = devices.pmap_examples(_with_chunk)
  blocks = [
    _search(search, unit(queries[i : i + _QUERIES]), bank, found)
    for i in range(0, len(queries), _QUERIES)
  ]
  places, cosines = map(np.concatenate, zip(*blocks, strict=True))
  if own is None:
    return places, cosines
  is_own = places == own[:, None]
  # Hidden behind its duplicates: then the last is the one too many.
  is_own[~is_own.any(axis=1), -1] = True
  return places[~is_own].reshape(-1, k), cosines[~is_own].reshape(-1, k)


def _search(search, queries, bank, found):
  """Places and cosines of one block of queries."""
  best = (
    np.full((len(queries), found), -1, np.int32),
    np.full((len(queries), found), -np.inf, np.float32),
  )
  size = min(_BANK, len(bank))
  for start in range(0, len(bank), size):
    chunk = unit(bank[start : start + size])
    # Always of one shape, as each shape is compiled.
    places = np.arange(start, start + size, dtype=np.int32)
    places[len(chunk) :] = -1
    chunk = np.pad(chunk, ((0, size - len(chunk)), (0, 0)))
    best = search((chunk, places), (queries, best))
  return best


def _with_chunk(chunk, examples):
  """The best so far of each query, after a look at a chunk of the bank."""
  vectors, places = chunk

  def better(example):
    query, (best, cosines) = example
    # In full float32, not in a GPU's TF32, in which close neighbours swap.
    new = jnp.matmul(vectors, query, precision=jax.lax.Precision.HIGHEST)
    new = jnp.where(places >= 0, new, -jnp.inf)
    cosines, i = jax.lax.top_k(
      jnp.concatenate([cosines, new]), cosines.shape[0]
    )
    return jnp.concatenate([best, places])[i], cosines

  return jax.lax.map(better, examples, batch_size=_AT_ONCE)
