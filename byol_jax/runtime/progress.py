"""Bars that show how much is done, and the time that is left, on stderr."""

import sys
import time
from typing import Any

import tqdm

# Without a terminal, a line takes the place of the bar this often. Our choice.
_SECONDS_PER_LINE = 30.0
# What is done sooner needs no bar. Our choice.
_SHORT_SECONDS = 1.0


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
    delay=_SHORT_SECONDS if sys.stderr.isatty() else _SECONDS_PER_LINE,
    disable=not is_shown,
  )


def _bar(text: str, total: int, **options: Any) -> tqdm.tqdm:
  """Returns a bar of tqdm; where there is no terminal, it writes lines."""
  terminal = sys.stderr.isatty()
  return tqdm.tqdm(
    total=total,
    file=sys.stderr if terminal else _Lines(),
    mininterval=0.1 if terminal else _SECONDS_PER_LINE,  # 0.1 is tqdm's.
    miniters=1,  # Otherwise tqdm guesses how rarely to read the clock.
    dynamic_ncols=terminal,
    bar_format="{percentage:3.0f}% " + ("|{bar}| " if terminal else "") + text,
    **options,
  )


class _Lines:
  """Writes each state of tqdm on its own line of stderr, after the time of day."""

  def write(self, text: str) -> None:
    if text := text.strip():
      sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")

  def flush(self) -> None:
    sys.stderr.flush()
