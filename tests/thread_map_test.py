"""Threads that compute results ahead of their consumer."""

import itertools
import os

from byol_jax.data import thread_map


def test_few_items_are_made_ahead_and_order_is_kept():
  started = []
  results = thread_map.thread_map(
    lambda i: started.append(i) or -i, range(1000), ""
  )
  assert list(itertools.islice(results, 3)) == [(0, 0), (1, -1), (2, -2)]
  assert len(started) <= 4 * os.cpu_count() + 3
  results.close()
