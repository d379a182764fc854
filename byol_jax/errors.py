"""The one exception that is meant for users' eyes, and its usual texts."""

import contextlib
from collections.abc import Iterable, Iterator

# What to do where an evaluation could not write.
EVALUATE_AGAIN = (
  "free space there and run with --mode=evaluate: the checkpoint is kept"
)


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


@contextlib.contextmanager
def writing(what: object, remedy: str) -> Iterator[None]:
  """Turns a failure to write, in its block, into a `UserError` with a remedy."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f"Cannot write {what}: {reason}; {remedy}.") from error
