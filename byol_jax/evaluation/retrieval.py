"""Retrieval: what an image's nearest neighbours are, labelled or not."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from byol_jax.evaluation.features import Features, share_a_class
from byol_jax.evaluation.neighbours import nearest, unit

_SHOWN = 8  # Queries evenly spaced over the split: what fits one page.


def run(
  bank: Features,
  queries: Features,
  *,
  k: int,
  exclude_self: bool,
  seed: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields how close, and of which class, the neighbours of the queries are.

  The nearest neighbour must be closer than chance: where both cosines are near
  1, the encoder has collapsed and gives every image the same features.

  Args:
    bank: what is searched.
    queries: what neighbours are searched for.
    k: how many of them.
    exclude_self: whether the queries are the bank, and none its own neighbour.
    seed: decides the random pairs.

  Yields:
    `("precision_at_K", {"value": share of the neighbours that have the query's
    label, "k": k})` if the queries have labels, then `("nearest_cosine",
    {"value": ...})` and `("random_cosine", {"value": ...})`, means over the
    queries of the cosine with the nearest and with a random vector.
  """
  places = np.arange(len(queries.labels))
  neighbours, cosines = nearest(
    queries.vectors, bank.vectors, k=k, own=places if exclude_self else None
  )
  if np.all(queries.labels >= 0):
    agree = share_a_class(
      bank.labels[neighbours],
      queries.labels[:, None],
      several=queries.labels.ndim == 2,
    )
    yield f"precision_at_{k}", {"value": float(np.mean(agree)), "k": k}
  yield "nearest_cosine", {"value": float(np.mean(cosines[:, 0]))}

  rng = np.random.RandomState(seed)
  # From 1 on, the step leads round the bank to any vector but the query's own.
  steps = rng.randint(int(exclude_self), len(bank.labels), len(places))
  partners = unit(bank.vectors[(places + steps) % len(bank.labels)])
  random_cosines = np.sum(unit(queries.vectors) * partners, axis=1)
  yield "random_cosine", {"value": float(np.mean(random_cosines))}


def examples(
  bank: Features, queries: Features, *, k: int, exclude_self: bool
) -> dict[str, Any]:
  """Finds the neighbours of a few of the queries, for people to see.

  Args:
    bank: see `run`, as are the others.
    queries: evenly spaced ones are taken.
    k: how many neighbours.
    exclude_self: whether the queries are the bank.

  Returns:
    `{"queries": places [R], "neighbours": places [R, k], "cosines": [R, k]}`.
  """
  last = len(queries.labels) - 1
  shown = np.unique(np.linspace(0, last, _SHOWN).astype(np.int32))
  neighbours, cosines = nearest(
    queries.vectors[shown],
    bank.vectors,
    k=k,
    own=shown if exclude_self else None,
  )
  return {"queries": shown, "neighbours": neighbours, "cosines": cosines}
