"""Errors that Python prints, as no caller can catch them."""

import sys
import types
from collections.abc import Callable


def hide(is_harmless: Callable[[BaseException | None], bool]) -> None:
  """Keeps Python from printing harmless errors of callbacks and finalisers.

  Call it once for each kind of error, since it lasts as long as the program.

  Args:
    is_harmless: whether not to print an error.
  """
  report, report_unraisable = sys.excepthook, sys.unraisablehook

  def report_others(
    kind: type[BaseException],
    error: BaseException,
    trace: types.TracebackType | None,
  ) -> None:
    if not is_harmless(error):
      report(kind, error, trace)

  def report_other_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    if not is_harmless(unraisable.exc_value):
      report_unraisable(unraisable)

  sys.excepthook = report_others
  sys.unraisablehook = report_other_unraisable
