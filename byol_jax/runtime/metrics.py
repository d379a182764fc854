"""Metrics from the device to JSON lines, TensorBoard and a progress bar.

A training loop holds a list of them: each has `write(step, scalars)`, where
`scalars` maps flat names such as `train/loss` to numbers, and `close()`.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import jax
import numpy as np
import tensorflow as tf
import tqdm

from byol_jax import errors
from byol_jax.runtime import files

# Steps that the device may be behind: enough that it never waits for the host
# to look at a metric, few enough that the host does not run away.
_LAG = 2

# A share of the time that is worth a hint: a quarter more speed to be had.
_MUCH_WAIT = 0.2

_REMEDY = "free space there or choose another directory"

# What the progress bar shows, in this order.
_SHOWN = {
  "train/loss": "loss {:.2f}",
  "train/top1_accuracy": "top-1 {:.1%}",
  "train/images_per_second": "{:,.0f} img/s",
  "train/data_wait": "data wait {:.0%}",
}


class Writer(Protocol):
  """What a training loop needs of a writer."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Takes the scalars of a step."""

  def close(self) -> None:
    """Finishes what was begun."""


class NotFiniteError(Exception):
  """Training has gone to NaN or infinity."""


class Meter:
  """Collects what the device reports and writes it every so many steps.

  Rates leave out the first step, which waits for compilation.
  """

  def __init__(
    self,
    writers: Sequence[Writer],
    *,
    batch_size: int,
    every_steps: int,
    last_step: int,
  ):
    self._writers = writers
    self._batch_size = batch_size
    self._every_steps = every_steps
    self._last_step = last_step
    # Steps and their metrics, still on the device.
    self._in_flight: list[tuple[int, Mapping[str, jax.Array]]] = []
    # Of the current interval, on the host.
    self._rows: list[dict[str, float]] = []
    self._since: float | None = None  # When timing began.
    self._untimed = 0  # Rows of the interval from before that.
    self._waited = 0.0  # Seconds since then spent on waiting for data.

  def waited(self, seconds: float) -> None:
    """Counts time spent on waiting for data."""
    self._waited += seconds

  def add(self, step: int, row: Mapping[str, jax.Array]) -> None:
    """Takes the metrics of a step without waiting for them.

    Raises:
      NotFiniteError: the loss of this or an earlier step is not finite.
    """
    self._in_flight.append((step, row))
    if len(self._in_flight) > _LAG:
      self._fetch()

  def drain(self) -> None:
    """Waits for the metrics of all steps; raises like `add`."""
    while self._in_flight:
      self._fetch()

  def close(self) -> None:
    """Closes the writers."""
    for writer in self._writers:
      writer.close()

  def _fetch(self) -> None:
    step, on_device = self._in_flight.pop(0)
    row = jax.device_get(on_device)
    if not math.isfinite(row["loss"]):
      raise NotFiniteError(f"The loss is {row['loss']} at step {step}")
    self._rows.append({f"train/{name}": row[name] for name in row})
    if step % self._every_steps == 0 or step == self._last_step:
      self._write(step)
      self._rows = []
      self._start_clock()
    elif self._since is None:
      self._start_clock()

  def _start_clock(self) -> None:
    self._since = time.monotonic()
    self._untimed = len(self._rows)
    self._waited = 0.0

  def _write(self, step: int) -> None:
    last = self._rows[-1]
    scalars = {
      **mean_of(self._rows),
      "train/tau": last["train/tau"],
      "train/learning_rate": last["train/learning_rate"],
    }
    if self._since is not None:
      seconds = time.monotonic() - self._since
      images = (len(self._rows) - self._untimed) * self._batch_size
      scalars["train/images_per_second"] = images / seconds
      scalars["train/data_wait"] = min(self._waited / seconds, 1.0)
    for writer in self._writers:
      writer.write(step, scalars)


class JsonlWriter:
  """One JSON object a line, `{"step": 10, "train/loss": 1.2}`, at `path`.

  A line is in the file when `write` returns. Lines of an earlier run beyond
  `resume_step`, and torn ones, are dropped, so that every step appears once.

  Raises:
    UserError: the file cannot be written; from `write` too.
  """

  def __init__(self, path: str | os.PathLike, resume_step: int):
    self._path = pathlib.Path(path)
    with files.replacing(self._path, _REMEDY) as file:
      rows = read_jsonl(self._path)
      kept = [row for row in rows if (row["step"] or 0) <= resume_step]
      file.write_text("".join(map(_line, kept)))
    with files.writing(self._path, _REMEDY):
      self._file = self._path.open("a")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line; NaN and infinities become null."""
    row = {name: float(value) for name, value in scalars.items()}
    with files.writing(self._path, _REMEDY):
      self._file.write(_line({"step": step, **row}))
      self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    with files.writing(self._path, _REMEDY):
      self._file.close()


class TensorBoardWriter:
  """An event file in `directory`, for `tensorboard --logdir`."""

  def __init__(self, directory: str | os.PathLike):
    self._directory = os.fspath(directory)
    with self._write_errors():
      self._writer = tf.summary.create_file_writer(self._directory)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds one point to the curve of each name."""
    # What tf.summary.scalar does, without its need for the package tensorboard
    # where nothing but writing happens.
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # Scalar.
    with self._write_errors(), self._writer.as_default():
      for name, value in scalars.items():
        tf.summary.write(name, np.float32(value), step=step, metadata=metadata)
      self._writer.flush()

  def close(self) -> None:
    """Writes what is still in memory and closes the file."""
    with self._write_errors():
      self._writer.close()

  @contextlib.contextmanager
  def _write_errors(self) -> Iterator[None]:
    try:
      yield
    except tf.errors.OpError as error:
      raise errors.UserError(
        f"Cannot write to {self._directory}: {error.message}; {_REMEDY}."
      ) from error


class ProgressBar:
  """Steps done out of `total` on stderr, with the latest scalars beside them.

  On a terminal a bar; anywhere else one line every 30 seconds.
  """

  def __init__(self, total: int, initial: int):
    terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
      total=total,
      initial=initial,
      file=sys.stderr if terminal else _Lines(),
      mininterval=0.1 if terminal else 30.0,  # Seconds; 0.1 is tqdm's.
      miniters=1,  # Else tqdm guesses how rarely to look at the clock.
      dynamic_ncols=terminal,
      bar_format="{percentage:3.0f}% "
      + ("|{bar}| " if terminal else "")
      + "step {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {desc}",
    )

  def update(self, step: int) -> None:
    """Moves the bar on to `step` steps done."""
    self._bar.update(step - self._bar.n)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Moves on to `step` and shows those of the scalars that fit a line."""
    shown = (
      text.format(float(scalars[name]))
      for name, text in _SHOWN.items()
      if name in scalars
    )
    self._bar.set_description_str(" | ".join(shown), refresh=False)
    self.update(step)

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._bar.close()


class DataWaitHint:
  """Says once on stderr what to do where training waits for its data."""

  def __init__(self, advice: str):
    self._advice = advice
    self._writes = 0
    self._told = False

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Looks at the share of the time that was waited, once it has settled."""
    self._writes += 1
    wait = scalars.get("train/data_wait", 0.0)
    # The first interval fills the buffers.
    if self._writes > 1 and wait > _MUCH_WAIT and not self._told:
      tqdm.tqdm.write(
        f"Note: at step {step}, {wait:.0%} of the time went on waiting for"
        f" data; {self._advice}.",
        file=sys.stderr,
      )
      self._told = True

  def close(self) -> None:
    """Has nothing to close."""


class _Lines:
  """Stderr for tqdm where nothing is redrawn: each state on its own line."""

  def write(self, text: str) -> None:
    if text := text.strip():
      sys.stderr.write(text + "\n")

  def flush(self) -> None:
    sys.stderr.flush()


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Returns the mean of each scalar over `rows`, which name the same ones."""
  return {
    name: float(np.mean([row[name] for row in rows], dtype=np.float64))
    for name in (rows[0] if rows else ())
  }


def read_jsonl(path: str | os.PathLike) -> list[dict[str, float | None]]:
  """Returns the rows a `JsonlWriter` wrote, without torn ones; [] if no file."""
  path = pathlib.Path(path)
  rows = []
  for line in path.read_text().splitlines() if path.exists() else ():
    with contextlib.suppress(json.JSONDecodeError):  # Torn by a kill.
      rows.append(json.loads(line))
  return rows


def _line(row: Mapping[str, float | None]) -> str:
  """One line of JSON, which knows no NaN."""
  finite = {
    name: value if value is None or math.isfinite(value) else None
    for name, value in row.items()
  }
  return json.dumps(finite, allow_nan=False) + "\n"
