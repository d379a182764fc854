"""Files are replaced at once or not at all, and failures are one line."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from byol_jax import errors
from byol_jax.runtime import files
from tests import command_line


def write(path: pathlib.Path, text: str) -> None:
  with files.atomic_write(path, "free space") as file:
    file.write_text(text)


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
  write(tmp_path / "a" / "b" / "file", "new")
  assert (tmp_path / "a" / "b" / "file").read_text() == "new"


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
  write(tmp_path / "file", "old")
  with files.atomic_write(tmp_path / "file", "free space") as file:
    file.write_text("new")
    assert (tmp_path / "file").read_text() == "old"
  assert (tmp_path / "file").read_text() == "new"
  assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
  write(tmp_path / "file", "old")

  def fail():
    with files.atomic_write(tmp_path / "file", "free space") as file:
      file.write_text("half")
      raise KeyError

  with pytest.raises(KeyError):
    fail()
  assert (tmp_path / "file").read_text() == "old"
  assert [path.name for path in tmp_path.iterdir()] == ["file"]


_KILLED = """
import os, pathlib, signal, sys
from byol_jax.runtime import files
with files.atomic_write(pathlib.Path(sys.argv[1]), "") as file:
  file.write_text("half")
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
  write(tmp_path / "file", "old")
  done = subprocess.run(
    [sys.executable, "-c", _KILLED, tmp_path / "file"], cwd=command_line.ROOT
  )
  assert done.returncode == -signal.SIGKILL
  assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("name", ["file/below", "file/below/it"])
def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path, name):
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError) as info:
    write(tmp_path / name, "new")
  assert str(info.value) == (
    f"Cannot write {tmp_path / name}: Not a directory; free space."
  )


def test_a_full_disk_is_told_with_what_was_written_and_the_remedy():
  with (
    pytest.raises(errors.UserError) as info,
    files.report_write_errors("results", "free space"),
  ):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert str(info.value) == (
    "Cannot write results: No space left on device; free space."
  )


def test_other_errors_pass_unchanged():
  with pytest.raises(KeyError), files.report_write_errors("results", ""):
    raise KeyError
