"""Writers of metrics: JSON lines, TensorBoard, a progress bar, a hint.

`runtime.tracking` has those for experiment trackers.

A training loop holds a list of writers. Each has `write(step, scalars)`, where
`scalars` maps flat names such as `train/loss` to numbers, `flush()` and `close()`.
"""

import io
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import PIL.Image
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2, summary_pb2

from byol_jax.runtime import console, files, growing

# A fraction of the time that is worth a hint: without the wait, training would
# be a quarter faster. Our choice.
_MUCH_WAIT = 0.2

_REMEDY = "free space there or choose another directory"

_COMPILING = "compiling"  # What the progress bar says during the first step.

# The scalars that the progress bar shows, in this order.
_SHOWN = {
  "train/loss": "loss {:.2f}",
  "train/top1_accuracy": "top-1 {:.1%}",
  "held_out/knn": "kNN {:.1%}",
  "train/images_per_second": "{:,.0f} img/s",
  "train/data_wait": "data wait {:.0%}",
}


class Writer(Protocol):
  """The interface of a writer."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes the scalars of a step."""

  def flush(self) -> None:
    """Writes what is buffered."""

  def close(self) -> None:
    """Writes what is buffered and releases files."""


class JsonlWriter:
  """Appends one JSON object per line, `{"step": 10, "train/loss": 1.2}`.

  A line is in the file when `write` returns; in a bucket, half a minute later or when
  `flush` returns.

  Args:
    path: of the file. Lines of an earlier run after `resume_step`, and a line
      torn by a kill, are dropped, so that the file holds every step once. If
      other lines are damaged, the file is kept as `NAME.damaged`.
    resume_step: the step that training resumes from, 0 at its start.

  Raises:
    UserError: the file cannot be written; also from `write` and `close`.
  """

  def __init__(self, path: str | os.PathLike, resume_step: int):
    self._path = files.to_path(path)
    with files.atomic_write(self._path, _REMEDY) as file:
      rows = read_undamaged(self._path)
      kept = [row for row in rows if row["step"] <= resume_step]
      file.write_text("".join(map(_to_line, kept)))
    with files.report_write_errors(self._path, _REMEDY):
      self._folder = growing.Growing(self._path.parent)
      on_disk = self._folder.on_disk / self._path.name
      if on_disk != self._path:
        on_disk.write_bytes(self._path.read_bytes())
      self._file = on_disk.open("a")

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line; NaN and infinities become null."""
    row = {name: float(value) for name, value in scalars.items()}
    with files.report_write_errors(self._path, _REMEDY):
      self._file.write(_to_line({"step": step, **row}))
      self._file.flush()
      self._folder.upload(at_once=False)

  def flush(self) -> None:
    """Writes all lines."""
    with files.report_write_errors(self._path, _REMEDY):
      self._folder.upload()

  def close(self) -> None:
    """Closes the file."""
    with files.report_write_errors(self._path, _REMEDY):
      self._file.close()
      self._folder.close()


class TensorBoardWriter:
  """Writes an event file for `tensorboard --logdir`.

  It uses the synchronous part of tensorboardX: the library's `SummaryWriter`
  writes in a thread, where an error would be lost.

  Args:
    directory: made if it is missing.
    resume_step: the step that training resumes from, 0 at its start. TensorBoard
      drops what earlier event files hold after it, so that it shows every step
      once.

  Raises:
    UserError: the file cannot be written; also from `write` and `close`.
  """

  def __init__(self, directory: str | os.PathLike, resume_step: int):
    self._directory = files.to_path(directory)
    with files.report_write_errors(self._directory, _REMEDY):
      self._folder = growing.Growing(self._directory)
      self._events = event_file_writer.EventsWriter(
        str(self._folder.on_disk / "events"),
        filename_suffix=f".{os.getpid()}",  # Two runs may start in one second.
      )
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    # TensorBoard drops this step, too.
    self._write(event_pb2.Event(step=resume_step + 1, session_log=start))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds one point to the curve of each scalar."""
    values = [
      value
      for name, scalar in scalars.items()
      for value in summary.scalar(name, float(scalar)).value
    ]
    self._write_values(step, values)

  def conclude(
    self,
    step: int,
    results: Mapping[str, float],
    pictures: Mapping[str, pathlib.Path],
  ) -> None:
    """Adds the results of a run as points, and PNGs by name."""
    self.write(step, results)
    for name, path in pictures.items():
      png = path.read_bytes()
      with PIL.Image.open(io.BytesIO(png)) as opened:
        width, height = opened.size
      image = summary_pb2.Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=png
      )
      self._write_values(
        step, [summary_pb2.Summary.Value(tag=name, image=image)]
      )

  def flush(self) -> None:
    """Writes all points."""
    with files.report_write_errors(self._directory, _REMEDY):
      self._folder.upload()

  def close(self) -> None:
    """Closes the file."""
    with files.report_write_errors(self._directory, _REMEDY):
      self._events.close()
      self._folder.close()

  def _write_values(self, step: int, values: Sequence[Any]) -> None:
    contents = summary_pb2.Summary(value=values)
    self._write(event_pb2.Event(step=step, summary=contents))

  def _write(self, event: event_pb2.Event) -> None:
    event.wall_time = time.time()
    with files.report_write_errors(self._directory, _REMEDY):
      self._events.write_event(event)
      self._events.flush()
      self._folder.upload(at_once=False)


class ProgressBar:
  """Shows the steps done and the latest scalars on stderr.

  A terminal gets a bar, anything else one line every 30 seconds, with the time of
  day. Until the first step is done, it says that the program compiles.

  Args:
    total: steps of the run.
    initial: steps that are already done.
  """

  def __init__(self, total: int, initial: int):
    self._latest: dict[str, float] = {}  # Of scalars that not every write has.
    self._bar = console.steps(total, initial, _COMPILING)

  def update(self, step: int) -> None:
    """Moves the bar to `step` steps done."""
    if step > self._bar.initial and self._bar.desc.startswith(_COMPILING):
      self._bar.set_description_str("", refresh=False)
    self._bar.update(step - self._bar.n)

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Moves the bar to `step` and shows the latest scalars."""
    self._latest |= scalars
    shown = [
      text.format(float(self._latest[name]))
      for name, text in _SHOWN.items()
      if name in self._latest
    ]
    if shown:
      self._bar.set_description_str(" | ".join(shown), refresh=False)
    self.update(step)

  def flush(self) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._bar.close()


class DataWaitHint:
  """Prints one note on stderr if training waits much for its data.

  Args:
    advice: completes the note, "...; {advice}."
  """

  def __init__(self, advice: str):
    self._advice = advice
    self._writes = 0
    self._was_shown = False

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Checks `train/data_wait`, from its second value on."""
    if "train/data_wait" not in scalars:
      return
    self._writes += 1
    wait = scalars["train/data_wait"]
    # The buffers fill during the first interval.
    if self._writes > 1 and wait > _MUCH_WAIT and not self._was_shown:
      console.say(
        f"Note: at step {step}, training spent {wait:.0%} of the time waiting"
        f" for data; {self._advice}."
      )
      self._was_shown = True

  def flush(self) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns the rows that a `JsonlWriter` wrote.

  Args:
    path: of the file.

  Returns:
    One dictionary per line, with an integer `step` and numbers or None, without
    damaged lines; [] if there is no file.
  """
  rows = map(_to_row, _lines(files.to_path(path)))
  return [row for row in rows if row is not None]


def read_undamaged(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows like `read_jsonl`; keeps a damaged file as `NAME.damaged`.

  A last line that was torn by a kill is no damage.
  """
  rows = read_jsonl(path)
  damaged = len([x for x in _lines(path) if x.endswith("\n")]) - len(rows)
  if damaged > 0:
    reason = f"{damaged} lines are no rows of metrics"
    files.set_aside(path, reason, "".join(map(_to_line, rows)))
  return rows


def _lines(path: pathlib.Path) -> list[str]:
  """Returns the lines of a file with their ends; [] without one."""
  if not path.exists():
    return []
  return path.read_text(errors="replace").splitlines(keepends=True)


def _to_row(line: str) -> dict[str, Any] | None:
  """Returns the row in a line; None if the line is damaged."""
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  is_row = (
    isinstance(row, dict)
    and isinstance(row.get("step"), int)
    and all(isinstance(value, int | float | None) for value in row.values())
  )
  return row if is_row else None


def _to_line(row: Mapping[str, float | None]) -> str:
  """Returns a row as one line of JSON, which has no NaN."""
  finite = {
    name: value if value is None or math.isfinite(value) else None
    for name, value in row.items()
  }
  return json.dumps(finite, allow_nan=False) + "\n"
