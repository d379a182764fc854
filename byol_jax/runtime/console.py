"""What a run says to people while it works: lines, notes and bars.

Lines go to stdout, notes and bars to stderr. Errors are exceptions, which the command
prints. `configure` chooses for the whole process which of the others are shown.
"""

import logging as python_logging
import sys
import time
from typing import Any

import tqdm
from absl import logging

from byol_jax.runtime import processes

# From the level that shows everything to the one that shows errors only.
_LEVELS = {"info": 0, "warning": 1, "error": 2}
_level = _LEVELS["info"]

# Begins a line about something doubtful, which is a warning.
_NOTE = "Note: "

# Without a terminal, a line takes the place of the bar this often. Our choice.
_SECONDS_PER_LINE = 30.0
# What is done sooner needs no bar. Our choice.
_SHORT_SECONDS = 1.0


def configure(level: str) -> None:
  """Chooses what the process shows from now on.

  Args:
    level: `log.level`: info, everything; warning, notes and warnings; error, neither.
  """
  global _level
  _level = _LEVELS[level]
  logging.get_absl_logger().addFilter(_is_logged)  # The same one counts once.


def say(line: str) -> None:
  """Prints a line in the primary process, above a bar.

  Args:
    line: goes to stderr, and shows at the level warning as well, if it begins with
      "Note: ".
  """
  is_note = line.startswith(_NOTE)
  if processes.is_primary() and _shows("warning" if is_note else "info"):
    stream = sys.stderr if is_note else sys.stdout
    if stream:  # None where the stream is closed.
      tqdm.tqdm.write(line, file=stream)
      stream.flush()


def steps(total: int, initial: int, text: str) -> tqdm.tqdm:
  """Returns a bar of training steps, which shows its description behind them.

  Args:
    total: steps of the run.
    initial: steps that are already done.
    text: the first description.
  """
  return _bar(
    "step {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {desc}",
    total,
    initial=initial,
    desc=text,
  )


def images(total: int, title: str, *, is_shown: bool) -> tqdm.tqdm:
  """Returns a bar of images, which work that is done at once does not show.

  Args:
    total: the number of images.
    title: what is done to them.
    is_shown: whether this process shows it.
  """
  return _bar(
    "{desc}: {n_fmt}/{total_fmt} images [{elapsed}<{remaining}]",
    total,
    desc=title,
    delay=_SHORT_SECONDS if _is_terminal() else _SECONDS_PER_LINE,
    disable=not is_shown,
  )


def files(total: int, title: str) -> tqdm.tqdm:
  """Returns a bar of files, which only a terminal shows.

  Args:
    total: the number of files.
    title: what is done to them.
  """
  hidden = None if _shows("info") else True  # None: where there is no terminal.
  return tqdm.tqdm(desc=title, total=total, unit="file", disable=hidden)


def _shows(level: str) -> bool:
  return _LEVELS[level] >= _level


def _is_terminal() -> bool:
  """Returns whether stderr is a terminal; it is None where it is closed."""
  return sys.stderr is not None and sys.stderr.isatty()


def _is_logged(record: python_logging.LogRecord) -> bool:
  return record.levelno >= python_logging.ERROR or _shows("warning")


def _bar(text: str, total: int, **options: Any) -> tqdm.tqdm:
  """Returns a bar of tqdm; where there is no terminal, it writes lines."""
  is_shown = _shows("info")
  terminal = is_shown and _is_terminal()
  return tqdm.tqdm(
    total=total,
    file=sys.stderr if terminal else _Lines(is_shown),
    mininterval=0.1 if terminal else _SECONDS_PER_LINE,  # 0.1 is tqdm's.
    miniters=1,  # Otherwise tqdm guesses how rarely to read the clock.
    dynamic_ncols=terminal,
    bar_format="{percentage:3.0f}% " + ("|{bar}| " if terminal else "") + text,
    **options,
  )


class _Lines:
  """Writes each state of tqdm on its own line of stderr, after the time of day."""

  def __init__(self, is_shown: bool):
    self._is_shown = is_shown

  def write(self, text: str) -> None:
    if self._is_shown and sys.stderr and (text := text.strip()):
      sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")

  def flush(self) -> None:
    if sys.stderr:
      sys.stderr.flush()
