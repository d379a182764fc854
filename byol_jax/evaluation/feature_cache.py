"""Features in files of a workdir, computed once for each cache key."""

import contextlib
import json
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import chex
import jax
import numpy as np
from absl import logging

from byol_jax.evaluation.features import Features
from byol_jax.runtime import files, processes

# The remedy in errors of files that an evaluation could not write.
WRITE_REMEDY = "free space there and run the same command again"

_VECTORS, _LABELS, _ABOUT = "vectors.npy", "labels.npy", "about.json"
# Read at a time for a checksum, so that a file need not fit in memory.
_CHECKSUM_BYTES = 2**24


def fingerprint(tree: chex.ArrayTree) -> str:
  """Returns a checksum of all arrays in a tree, 8 hexadecimal digits."""
  checksum = 0
  for leaf in jax.tree.leaves(jax.device_get(tree)):
    checksum = zlib.crc32(leaf.tobytes(), checksum)
  return f"{checksum:08x}"


def load_or_compute(
  folder: pathlib.Path,
  cache_key: Mapping[str, Any],
  count: int,
  compute: Callable[[], Iterator[Features]],
) -> Features:
  """Returns the features that a folder caches, or computes and caches them.

  Batches go to the files as they are computed, and the result is memory-mapped,
  so a large split need not fit in memory. Processes that do not see the primary
  process' disk keep a temporary copy of their own.

  Args:
    folder: holds these features only; files with another key are replaced.
    cache_key: everything that the features depend on, for JSON.
    count: the number of examples.
    compute: yields the features batch by batch; all processes take part.

  Returns:
    The features. Their files must not be changed while they are in use.

  Raises:
    UserError: if the files cannot be written.
  """
  # The key as JSON returns it, without tuples.
  cache_key = json.loads(json.dumps(cache_key))
  cached = _load(folder, lambda key: key == cache_key)
  # Computing takes all processes, so a single one that lacks the files decides.
  if (
    np.all(processes.all_gather_concat(np.array([cached is not None])))
    and cached
  ):
    return cached

  temporary = _primary_temporary_folder(folder)
  shares_disk = temporary.exists()
  if shares_disk and not processes.is_primary():
    for _ in compute():  # The primary process writes the result.
      pass
    processes.barrier()
    return _open(folder)
  if not shares_disk:
    temporary = pathlib.Path(tempfile.mkdtemp())
  try:
    with files.report_write_errors(f"features to {temporary}", WRITE_REMEDY):
      _write(temporary, cache_key, count, compute)
      features = _open(temporary)  # Stays valid when the files are moved.
    if processes.is_primary():
      shutil.rmtree(folder, ignore_errors=True)
      with contextlib.suppress(OSError):  # Another program was faster.
        temporary.rename(folder)
    processes.barrier()
    return features
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _primary_temporary_folder(folder: pathlib.Path) -> pathlib.Path:
  """Makes the primary process' folder for unfinished files."""

  def make() -> str:
    path = files.temporary_path(folder)
    with files.report_write_errors(f"features to {path}", WRITE_REMEDY):
      path.mkdir(parents=True, exist_ok=True)
    return path.name

  return folder.with_name(processes.broadcast_from_primary(make))


def _write(
  folder: pathlib.Path,
  cache_key: Mapping[str, Any],
  count: int,
  compute: Callable[[], Iterator[Features]],
) -> None:
  """Writes vectors, labels and, last, the key with all checksums."""
  labels: list[np.ndarray] = []
  # Not through a memory map: on a full disk, the system would kill the program.
  with (folder / _VECTORS).open("wb") as file:
    for batch in compute():
      if not labels:
        shape = (count, batch.vectors.shape[1])
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
      file.write(np.ascontiguousarray(batch.vectors, "<f4").data)
      labels.append(np.asarray(batch.labels, np.int32))
  found = sum(map(len, labels))
  if found != count or not labels:
    raise RuntimeError(f"{found} examples came where there are {count}.")
  np.save(folder / _LABELS, np.concatenate(labels))
  checksums = {name: _checksum(folder / name) for name in (_VECTORS, _LABELS)}
  checksums[_ABOUT] = _checksum_of_key(cache_key)
  about = {"about": cache_key, "checksums": checksums}
  (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def _open(folder: pathlib.Path) -> Features:
  return Features(
    np.load(folder / _VECTORS, mmap_mode="r"), np.load(folder / _LABELS)
  )


def load(folder: pathlib.Path, examples: Any) -> Features | None:
  """Returns the features that a folder caches of some examples, of any encoder.

  Args:
    folder: as for `load_or_compute`; may be missing.
    examples: the value of `examples` in the cache key.

  Returns:
    The features; None if there are none, or none of these examples.
  """
  examples = json.loads(json.dumps(examples))
  return _load(folder, lambda key: key.get("examples") == examples)


def _load(
  folder: pathlib.Path, is_wanted: Callable[[dict[str, Any]], bool]
) -> Features | None:
  """Returns cached features; None if unwanted by their key, or damaged."""
  if not folder.exists():
    return None
  try:
    about = json.loads((folder / _ABOUT).read_text())
    expected = dict(about["checksums"])
    # A damaged key may be equal to another, as whose features these would pass.
    if _checksum_of_key(about["about"]) != expected.get(_ABOUT):
      raise ValueError(f"{_ABOUT} differs from its checksum")
    if not is_wanted(about["about"]):
      return None
    for name in (_VECTORS, _LABELS):
      if _checksum(folder / name) != expected[name]:
        raise ValueError(f"{name} differs from its checksum")
    return _open(folder)
  except (OSError, ValueError, KeyError, TypeError) as error:
    logging.warning("Features are computed again, %s: %s.", folder, error)
    return None


def _checksum_of_key(cache_key: Mapping[str, Any]) -> str:
  return f"{zlib.crc32(json.dumps(cache_key).encode()):08x}"


def _checksum(path: pathlib.Path) -> str:
  checksum = 0
  with path.open("rb") as file:
    while block := file.read(_CHECKSUM_BYTES):
      checksum = zlib.crc32(block, checksum)
  return f"{checksum:08x}"
