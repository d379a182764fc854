"""Metrics to JSON lines, TensorBoard and a progress bar.

A training loop holds a list of them: each has `write(step, scalars)`, where
`scalars` maps flat names such as `train/loss` to numbers, and `close()`.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf
import tqdm

from byol_jax import errors
from byol_jax.runtime import files

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


class JsonlWriter:
  """One JSON object a line, `{"step": 10, "train/loss": 1.2}`, at `path`.

  A line is in the file when `write` returns. Lines of an earlier run beyond
  `resume_step`, and torn ones, are dropped, so that every step appears once.

  Raises:
    UserError: the file cannot be written; from `write` too.
  """

  def __init__(self, path: str | os.PathLike, resume_step: int):
    self._path = pathlib.Path(path)
    with files.atomic_write(self._path, _REMEDY) as file:
      rows = read_jsonl(self._path)
      kept = [row for row in rows if (row["step"] or 0) <= resume_step]
      file.write_text("".join(map(_line, kept)))
    with files.report_write_errors(self._path, _REMEDY):
      self._file = self._path.open("a")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line; NaN and infinities become null."""
    row = {name: float(value) for name, value in scalars.items()}
    with files.report_write_errors(self._path, _REMEDY):
      self._file.write(_line({"step": step, **row}))
      self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    with files.report_write_errors(self._path, _REMEDY):
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
