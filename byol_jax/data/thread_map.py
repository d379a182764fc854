"""Applies a function to many items in threads, with a progress bar."""

import collections
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

from byol_jax.runtime import console

Item = TypeVar("Item")
Result = TypeVar("Result")


def thread_map(
  function: Callable[[Item], Result], items: Sequence[Item], title: str
) -> Iterator[tuple[Item, Result]]:
  """Yields each item with its result, in order.

  At most four results per core are computed ahead, so that results which are
  images do not fill the memory.

  Args:
    function: is called in threads, one per core.
    items: the arguments of the calls.
    title: text of the progress bar, which only a terminal shows.
  """
  workers = os.cpu_count() or 1
  pending: collections.deque[futures.Future[Result]] = collections.deque()
  with (
    futures.ThreadPoolExecutor(workers) as pool,
    console.files(len(items), title) as bar,
  ):
    for i, item in enumerate(items):
      while len(pending) < 4 * workers and i + len(pending) < len(items):
        pending.append(pool.submit(function, items[i + len(pending)]))
      yield item, pending.popleft().result()
      bar.update()
