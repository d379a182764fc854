"""Applies a function to many items in threads, with a progress bar."""

import collections
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import tqdm


def thread_map(
  function: Callable, items: Sequence, title: str
) -> Iterator[tuple[Any, Any]]:
  """Yields each item and its result in order, a few of them made ahead."""
  workers = os.cpu_count() or 1
  pending: collections.deque = collections.deque()
  with (
    futures.ThreadPoolExecutor(workers) as pool,
    tqdm.tqdm(desc=title, total=len(items), unit="file", disable=None) as bar,
  ):
    for i, item in enumerate(items):
      while len(pending) < 4 * workers and i + len(pending) < len(items):
        pending.append(pool.submit(function, items[i + len(pending)]))
      yield item, pending.popleft().result()
      bar.update()
