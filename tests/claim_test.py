"""A workdir has one owner, who must live."""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from byol_jax import errors
from byol_jax.runtime import claim, files
from tests import command_line

# Claims a workdir, says so, and releases it at the end of its input.
_HOLDER = """
import pathlib, sys
from byol_jax.runtime import claim
with claim.Claim(pathlib.Path(sys.argv[1]), print):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that claims a workdir."""
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLDER, tmp_path],
    cwd=command_line.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


@pytest.fixture
def quick(monkeypatch):
  """Signs of life every twentieth of a second, death after half a second."""
  monkeypatch.setattr(claim, "_SIGN_SECONDS", 0.05)
  monkeypatch.setattr(claim, "_POLL_SECONDS", 0.02)
  monkeypatch.setattr(claim, "_DEAD_AFTER_SECONDS", 0.5)


def path_in(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / claim.FILE


def write(workdir: pathlib.Path, **changes) -> None:
  """Writes the claim of another process, which differs from ours in `changes`."""
  owner = claim._this_process()._replace(token="other", **changes)
  path_in(workdir).write_text(json.dumps(owner._asdict()))


def take(workdir: pathlib.Path) -> list[str]:
  """Claims a workdir, releases it and returns what was said."""
  said: list[str] = []
  with claim.Claim(workdir, said.append):
    owner = json.loads(path_in(workdir).read_text())
    assert owner["pid"] == os.getpid()
  assert not path_in(workdir).exists()
  return said


def test_a_second_process_is_refused_until_the_first_ends(holder, tmp_path):
  since = json.loads(path_in(tmp_path).read_text())["since"]
  with pytest.raises(errors.UserError) as info:
    take(tmp_path)
  assert f"process {holder.pid} on" in str(info.value)
  assert f"since {since}" in str(info.value)
  assert "\n" not in str(info.value)
  holder.communicate()
  assert not path_in(tmp_path).exists()
  assert take(tmp_path) == []


def test_a_killed_process_is_followed_at_once(holder, tmp_path):
  holder.kill()  # Not waited for, it stays as a zombie.
  time.sleep(0.2)
  (line,) = take(tmp_path)
  assert f"process {holder.pid}" in line


def test_a_process_that_got_the_same_id_later_is_not_the_owner(tmp_path):
  write(tmp_path, pid=os.getppid(), started="1")
  assert len(take(tmp_path)) == 1
  write(tmp_path, pid=os.getppid(), started=claim._stat(os.getppid())[1])
  with pytest.raises(errors.UserError, match=f"process {os.getppid()} on"):
    take(tmp_path)


@pytest.mark.parametrize("contents", ["", "{", "[1]", '{"pid": 1}', "\0\xff"])
def test_a_damaged_claim_counts_until_its_last_touch_is_old(
  contents, tmp_path, quick
):
  path_in(tmp_path).write_text(contents)
  begun = time.monotonic()
  waiting, taken = take(tmp_path)
  assert 0.3 < time.monotonic() - begun < 5
  assert "unknown process" in waiting
  assert "unknown process" in taken


def test_another_host_is_followed_once_it_shows_no_sign_of_life(
  tmp_path, quick
):
  write(tmp_path, host="far", machine="other", pid=1)
  begun = time.monotonic()
  waiting, taken = take(tmp_path)
  assert 0.3 < time.monotonic() - begun < 5
  assert "process 1 on far" in waiting
  assert "process 1 on far" in taken

  write(tmp_path, host="far", machine="other", pid=1)
  old = time.time() - 60
  os.utime(path_in(tmp_path), (old, old))
  assert len(take(tmp_path)) == 1  # Without a wait.


def test_another_host_that_shows_a_sign_of_life_is_left_alone(tmp_path, quick):
  """Its clock may be wrong: only the disk's times count."""
  write(tmp_path, host="far", machine="other", pid=1)

  def touch(line):
    assert "far" in line
    os.utime(path_in(tmp_path))

  with pytest.raises(errors.UserError, match="in use by process 1 on far"):
    claim.Claim(tmp_path, touch).__enter__()


def test_an_owner_shows_signs_of_life(tmp_path, quick):
  with claim.Claim(tmp_path, print):
    before = path_in(tmp_path).stat().st_mtime_ns
    time.sleep(0.3)
    assert path_in(tmp_path).stat().st_mtime_ns > before
    path_in(tmp_path).unlink()  # By hand.
    time.sleep(0.3)
    assert path_in(tmp_path).exists()


def lose(workdir: pathlib.Path, how, seconds: float = 5) -> str:
  """Loses a claim and returns the error, which may come at any moment."""

  def work():
    with claim.Claim(workdir, print):
      how()
      time.sleep(seconds)

  with pytest.raises(errors.UserError) as info:
    work()
  return str(info.value)


def test_an_owner_notices_that_another_took_over(tmp_path, quick):
  said = lose(tmp_path, lambda: write(tmp_path, host="far", pid=7))
  assert "taken over by process 7 on far" in said
  assert json.loads(path_in(tmp_path).read_text())["pid"] == 7


def test_a_thread_claims_a_workdir_and_is_told_a_loss_at_its_end(
  tmp_path, quick
):
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    assert pool.submit(take, tmp_path).result() == []
    lost = pool.submit(lose, tmp_path, lambda: write(tmp_path, host="far"), 0.2)
    assert "taken over by process" in lost.result()


def test_a_frozen_owner_notices_before_it_does_anything_else(tmp_path):
  def freeze():
    write(tmp_path, host="far", pid=7)
    os.kill(os.getpid(), signal.SIGCONT)  # As on waking up.
    pytest.fail("went on")

  assert "taken over by process 7 on far" in lose(tmp_path, freeze)


@pytest.mark.parametrize("replaced", [False, True])
def test_an_owner_notices_that_the_workdir_is_gone(tmp_path, quick, replaced):
  workdir = tmp_path / "run"

  def move():
    workdir.rename(tmp_path / "elsewhere")
    if replaced:
      workdir.mkdir()

  assert "deleted or moved" in lose(workdir, move)
  assert not path_in(workdir).exists()


def test_a_loss_is_told_at_the_end_at_the_latest(tmp_path):
  held = claim.Claim(tmp_path / "run", print)
  held.__enter__()
  (tmp_path / "run").rename(tmp_path / "elsewhere")
  with pytest.raises(errors.UserError, match="deleted or moved"):
    held.__exit__(None, None, None)


def test_leftovers_of_dead_processes_are_removed(tmp_path):
  dead = subprocess.Popen([sys.executable, "-c", ""])
  dead.wait()
  host = files.temporary_prefix()
  (tmp_path / "features").mkdir()
  names = [
    f"{host}{dead.pid}.results.json",
    f"features/{host}{dead.pid}.test",
    f"{host}{os.getpid()}.results.json",
    ".elsewhere.1.results.json",
    f"{host}x.results.json",
  ]
  for name in names:
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").touch()
  (tmp_path / f"{host}{dead.pid}.config.json").touch()
  take(tmp_path)
  left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob(".*")}
  assert left == set(names[2:])


def test_a_container_of_the_same_host_name_keeps_its_files(
  tmp_path, monkeypatch
):
  """The process ids of one container say nothing about those of another."""
  with monkeypatch.context() as elsewhere:
    elsewhere.setattr(files, "machine", lambda: "boot pid:[1]")
    written = files.temporary_path(tmp_path / "results.json")
  left = written.with_name(written.name.replace(f"{os.getpid()}", "4194305"))
  left.touch()  # No process has that id here: it is above the largest of Linux.
  take(tmp_path)
  assert left.exists()


def test_an_unwritable_workdir_is_one_line(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match="choose another --workdir"):
    take(tmp_path / "file" / "run")
