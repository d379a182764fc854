"""The one exception that is meant for users' eyes."""

from collections.abc import Iterable


class UserError(ValueError):
  """A mistake a user can mend; its message is one line: value, rule, remedy.

  `main` prints the message without a traceback and exits non-zero. Anything
  else that is raised is a defect of ours and keeps its traceback.
  """


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
  """The error for a name that a registry does not hold; lists those it does."""
  return UserError(
    f"{what} {name!r} is unknown; choose one of: {', '.join(known)}."
  )
