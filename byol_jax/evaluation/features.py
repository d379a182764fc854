"""Frozen features of a split, made once and kept in files."""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import numpy as np
from absl import logging

from byol_jax.models.encode import Encode
from byol_jax.runtime import files, processes

# What settles the running batch-norm statistics of an encoder that was never
# trained: they average over about 1 / (1 - 0.9) = 10 batches.
_CALIBRATION_BATCHES = 20
CALIBRATION_BATCH_SIZE = 64

_VECTORS, _LABELS, _ABOUT = "vectors.npy", "labels.npy", "about.json"
# What to do where an evaluation could not write.
WRITE_AGAIN = "free space there and run the same command again"
_READ_AT_ONCE = 2**24  # Bytes of a file, for its checksum.


class Features(NamedTuple):
  """One vector an example, in the order of the files.

  Attributes:
    vectors: [N, D] float32; may lie in a file.
    labels: [N] int32, -1 where unknown; [N, C] of 0 and 1 where an example may
      be of several classes.
  """

  vectors: np.ndarray
  labels: np.ndarray

  def part(self, places: range | np.ndarray) -> "Features":
    """Those of some examples; of a range without a copy."""
    if isinstance(places, range):
      where: Any = slice(places.start, places.stop)
    else:
      where = places
    return Features(self.vectors[where], self.labels[where])


Batches = Iterable[Mapping[str, np.ndarray]]  # Of "image" and "label".


def share_a_class(
  labels: np.ndarray, others: np.ndarray, *, several: bool
) -> np.ndarray:
  """Whether examples are of one class, or have one in common, as they broadcast.

  Args:
    labels: [...] int32; if `several`, [..., C] of 0 and 1.
    others: likewise.
    several: whether an example may be of more than one class.

  Returns:
    [...] bool.
  """
  if several:
    return np.any((labels > 0) & (others > 0), axis=-1)
  return labels == others


def pixels(images: np.ndarray) -> np.ndarray:
  """The images themselves, as vectors."""
  return images.reshape(len(images), -1)


def calibrated_state(
  network: hk.TransformedWithState,
  params: hk.Params,
  state: hk.State,
  batches: Batches,
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


def fingerprint(tree: chex.ArrayTree) -> str:
  """A checksum of all arrays of a tree: other parameters have another."""
  checksum = 0
  for leaf in jax.tree.leaves(jax.device_get(tree)):
    checksum = zlib.crc32(leaf.tobytes(), checksum)
  return f"{checksum:08x}"


def extract(
  encode: Encode, batches: Batches, count: int | None = None
) -> Iterator[Features]:
  """Features of the examples of a stream, batch by batch.

  Args:
    encode: from images to features.
    batches: of examples; of several processes, each one's slices.
    count: how many examples there are, if the last batch is filled up.

  Yields:
    The features of whole batches, in all processes.
  """
  at = 0
  for batch in batches:
    found = Features(
      processes.joined(encode(batch["image"])),
      processes.joined(batch["label"]),
    )
    yield found if count is None else found.part(range(count - at))
    at += len(found.labels)


def kept(
  folder: pathlib.Path,
  about: Mapping[str, Any],
  count: int,
  make: Callable[[], Iterator[Features]],
) -> Features:
  """Features from a folder of files, made and put there if they are not.

  They go to the files batch by batch and are read from there, so that a large
  split need not fit in memory.

  Args:
    folder: of these features alone; what it holds of others is replaced.
    about: all that they depend on, for JSON.
    count: how many there are.
    make: makes them, batch by batch.

  Returns:
    The features, in files that must not be changed meanwhile.

  Raises:
    UserError: if they cannot be written.
  """
  about = json.loads(json.dumps(about))
  found = _read(folder, about)
  # Making them takes all processes, so those that cannot see the folder decide.
  if np.all(processes.joined(np.array([found is not None]))) and found:
    return found

  def making_of(pid: int) -> pathlib.Path:
    return folder.with_name(f"{folder.name}.{pid}.tmp")

  def begin() -> int:
    making = making_of(os.getpid())
    with files.writing(f"features to {making}", WRITE_AGAIN):
      making.mkdir(parents=True, exist_ok=True)
    return os.getpid()

  making = making_of(processes.of_first(begin))
  if not making.exists():  # Another machine's disk, so here is a copy for this.
    making = pathlib.Path(tempfile.mkdtemp())
  elif not processes.is_first():
    for _ in make():  # Its part, which the first one writes down.
      pass
    processes.meet()
    return _opened(folder)
  try:
    with files.writing(f"features to {making}", WRITE_AGAIN):
      _fill(making, count, make)
      sums = {name: _checksum(making / name) for name in (_VECTORS, _LABELS)}
      text = json.dumps({"about": about, "checksums": sums}, indent=2)
      (making / _ABOUT).write_text(text + "\n")
      made = _opened(making)  # Still there when the files have another name.
    if processes.is_first():
      shutil.rmtree(folder, ignore_errors=True)
      with contextlib.suppress(OSError):  # Another program was faster.
        making.rename(folder)
    processes.meet()
    return made
  finally:
    shutil.rmtree(making, ignore_errors=True)


def _fill(
  folder: pathlib.Path, count: int, make: Callable[[], Iterator[Features]]
) -> None:
  at, vectors = 0, None
  for batch in make():
    if vectors is None:
      shape = (count, batch.vectors.shape[1])
      vectors = np.lib.format.open_memmap(
        folder / _VECTORS, "w+", np.float32, shape
      )
      labels = np.zeros((count, *batch.labels.shape[1:]), np.int32)
    after = at + len(batch.labels)
    vectors[at:after] = batch.vectors
    labels[at:after] = batch.labels
    at = after
  if at != count or vectors is None:
    raise RuntimeError(f"{at} examples came where there are {count}.")
  vectors.flush()
  np.save(folder / _LABELS, labels)


def _opened(folder: pathlib.Path) -> Features:
  return Features(
    np.load(folder / _VECTORS, mmap_mode="r"), np.load(folder / _LABELS)
  )


def _read(folder: pathlib.Path, about: Mapping[str, Any]) -> Features | None:
  """What the folder holds, None if it is of something else or damaged."""
  if not folder.exists():
    return None
  try:
    written = json.loads((folder / _ABOUT).read_text())
    if written["about"] != about:
      return None
    for name, expected in written["checksums"].items():
      if _checksum(folder / name) != expected:
        raise ValueError(f"{name} has changed")
    return _opened(folder)
  except (OSError, ValueError, KeyError, TypeError) as error:
    logging.warning("Features are made anew, %s: %s.", folder, error)
    return None


def _checksum(path: pathlib.Path) -> str:
  checksum = 0
  with path.open("rb") as file:
    while block := file.read(_READ_AT_ONCE):
      checksum = zlib.crc32(block, checksum)
  return f"{checksum:08x}"
