"""Paths that no folder can have."""

import os
import pathlib

import pytest

from byol_jax import errors
from byol_jax.cli import flags
from tests import eval_cases


@pytest.mark.parametrize(
  ("path", "reason"),
  [
    ("a" * 5000, "too long"),
    (os.fsdecode(b"/tmp/run\xff\n"), "not UTF-8"),
  ],
)
def test_a_workdir_that_cannot_be_is_one_line(path, reason):
  with pytest.raises(errors.UserError, match=reason) as caught:
    flags._checked_workdir(pathlib.Path(path))
  message = str(caught.value)
  assert message.startswith(f"--workdir={path[:5]}")
  assert "\n" not in message
  assert len(message) < 200
  message.encode()


@pytest.mark.parametrize(
  ("mode", "import_from"), [("import", ""), ("pretrain", "FILE")]
)
def test_only_the_import_takes_a_file_to_import(mode, import_from):
  options = eval_cases.options(
    pathlib.Path("run"), mode=mode, import_from=import_from
  )
  with pytest.raises(errors.UserError, match="needs --import_from=FILE"):
    flags._check(options)
