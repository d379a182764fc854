"""The exception whose message users see."""

from collections.abc import Iterable


class UserError(ValueError):
  """A mistake that the user can correct.

  Its message is one line that names the value, the rule and the remedy. The
  command line prints it without a traceback and exits with 1. Any other
  exception is a defect of this program and keeps its traceback.
  """


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
  """Returns the error for a name that a registry lacks.

  Args:
    what: the kind of thing, such as "--mode", which begins the message.
    name: the unknown name.
    known: the names to choose from.
  """
  return UserError(
    f"{what} {name!r} is unknown; choose one of: {', '.join(known)}."
  )
