"""Measures time and memory of a nearest-neighbour search in a large bank.

    python -m benchmarks.neighbours --bank=1000000 --queries=10000

The bank is a file of random float32 vectors, as features are. The benchmark
prints a JSON line. --sklearn measures scikit-learn's brute force on the same
vectors instead.
"""

import argparse
import json
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable

import numpy as np

from byol_jax.runtime import cpu

_ROWS = 50_000  # Rows of the bank that are written at a time.


def main() -> None:
  """Runs the benchmark with the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--bank", type=int, default=1_000_000)
  parser.add_argument("--queries", type=int, default=10_000)
  parser.add_argument("--features", type=int, default=256)
  parser.add_argument("--k", type=int, default=20)
  parser.add_argument("--sklearn", action="store_true")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    bank = _stored(pathlib.Path(folder), options.bank, options.features)
    random = np.random.default_rng(1)
    queries = random.standard_normal(
      (options.queries, options.features), np.float32
    )
    search = _by_sklearn() if options.sklearn else _by_us()
    before = _peak_mb()
    started = time.perf_counter()
    places = search(bank, queries, options.k)
    seconds = time.perf_counter() - started
  print(
    json.dumps(
      {
        "benchmark": "neighbours",
        **vars(options),
        "seconds": round(seconds, 1),
        "peak_memory_mb": _peak_mb(),
        "before_mb": before,
        "checksum": int(places.astype(np.int64).sum()),
      }
    )
  )


def _stored(folder: pathlib.Path, count: int, features: int) -> np.ndarray:
  path = folder / "bank.npy"
  bank = np.lib.format.open_memmap(path, "w+", np.float32, (count, features))
  random = np.random.default_rng(0)
  for start in range(0, count, _ROWS):
    rows = bank[start : start + _ROWS]
    rows[:] = random.standard_normal(rows.shape, np.float32)
  bank.flush()
  return np.load(path, mmap_mode="r")


# The imports stay outside of the measured time and memory.
def _by_us() -> Callable[..., np.ndarray]:
  from byol_jax.evaluation import neighbours

  return lambda bank, queries, k: neighbours.nearest(queries, bank, k=k)[0]


def _by_sklearn() -> Callable[..., np.ndarray]:
  from sklearn import neighbors

  def search(bank, queries, k):
    model = neighbors.NearestNeighbors(
      n_neighbors=k, algorithm="brute", metric="cosine"
    )
    return model.fit(bank).kneighbors(queries, return_distance=False)

  return search


def _peak_mb() -> int:
  """Returns the peak resident memory in MB, with the pages read of the bank."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return round(peak / 1e3)


if __name__ == "__main__":
  cpu.restart_with_huge_pages()
  main()
