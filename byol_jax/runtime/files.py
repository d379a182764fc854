"""Writing files, so that neither a full disk nor a kill does harm."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from byol_jax import errors


@contextlib.contextmanager
def report_write_errors(what: object, remedy: str) -> Iterator[None]:
  """Turns a failure to write, in its block, into a `UserError` with a remedy."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise errors.UserError(
      f"Cannot write {what}: {reason}; {remedy}."
    ) from error


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, remedy: str) -> Iterator[pathlib.Path]:
  """Gives its block a file to write, which then takes the place of `path`.

  A kill in between leaves what was there. A failure to write is a `UserError`
  with a remedy.
  """
  written = path.with_name(f".{os.getpid()}.{path.name}")
  with report_write_errors(path, remedy):
    with contextlib.suppress(FileExistsError):  # If by a file, writing says so.
      path.parent.mkdir(parents=True)
    try:
      yield written
      written.replace(path)
    finally:
      written.unlink(missing_ok=True)
