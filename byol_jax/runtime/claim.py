"""A workdir belongs to one training at a time, also on a disk that hosts share.

The claim is a small file in the workdir. It names the process that made it,
which touches it as a sign of life. `flock` alone would not do: on some shared
disks it holds on one host only, and it tells nobody who holds it.
"""

import contextlib
import datetime
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from byol_jax import errors
from byol_jax.runtime import files, shutdown

FILE = "claim.json"

# Our choice: a sign of life costs one small write. Like a process that JAX has lost
# (`processes`), an owner counts as dead after 30 seconds, in which a slow disk may
# lose five of six signs.
_SIGN_SECONDS = 5.0
_DEAD_AFTER_SECONDS = 30.0
_POLL_SECONDS = 0.5
_REMEDY = "choose another --workdir"


class Owner(NamedTuple):
  """The process that claims a workdir.

  Attributes:
    host: its name.
    machine: `files.machine()`, within which the process id means something.
    pid: process id.
    started: when the process started, in clock ticks since the boot: another
      process may get the same id. "" where the system does not tell.
    since: when it claimed the workdir, for people.
    token: different for every claim.
  """

  host: str
  machine: str
  pid: int
  started: str
  since: str
  token: str


class Claim:
  """Holds a workdir while a `with` block runs.

  `UserError` is raised once another process has taken the claim over or the workdir
  is gone: wherever the block is in the main thread, which a signal interrupts, and
  at the end of the block in any other. Another host takes it over only from an
  owner that gave no sign of life, such as a frozen one.

  Args:
    workdir: made if it is missing.
    say: is called with a line about a claim of another process.

  Raises:
    UserError: a living process claims the workdir, or it cannot be written.
  """

  def __init__(self, workdir: pathlib.Path, say: Callable[[str], None]):
    self._path = workdir / FILE
    self._say = say
    self._owner = _this_process()
    # Held by whoever changes the file; set once that may no longer happen.
    self._changing = threading.Lock()
    self._released = threading.Event()

  def __enter__(self) -> "Claim":
    with files.report_write_errors(self._path, _REMEDY):
      # A file in the place of a folder shows in the error of `_make`.
      with contextlib.suppress(FileExistsError):
        files.make_folder(self._path.parent)
      self._folder = files.identity(self._path.parent)
      while not self._make():
        self._remove_if_dead()
    _remove_leftovers(self._path.parent, ("", "*/"))
    _remove_leftovers(pathlib.Path(tempfile.gettempdir()), ("",))
    self._is_main = threading.current_thread() is threading.main_thread()
    if self._is_main:  # Only there may Python set a handler.
      # A process that was frozen looks at once whether it still owns the workdir.
      self._former = signal.signal(signal.SIGCONT, self._raise_if_lost)
    threading.Thread(target=self._show_life, daemon=True).start()
    return self

  def __exit__(self, kind: type[BaseException] | None, *unused) -> None:
    with self._changing, contextlib.suppress(OSError):
      self._released.set()
      if self._is_main:
        signal.signal(signal.SIGCONT, self._former)
      if kind is None and (loss := self._loss()):
        raise errors.UserError(f"{loss}.")
      if _read(self._path).owner == self._owner:
        self._path.unlink()

  def _make(self) -> bool:
    """Returns whether the file was made, which only one process can do."""
    try:
      files.create(self._path, json.dumps(self._owner._asdict()))
    except FileExistsError:
      # A bucket's library asks again if it got no answer the first time.
      with contextlib.suppress(FileNotFoundError):
        return _read(self._path).owner == self._owner
      return False
    return True

  def _remove_if_dead(self) -> None:
    """Removes the claim of a dead process; `UserError` if its owner lives."""
    try:
      found = _read(self._path)
      if self._lives(found):
        raise errors.UserError(
          f"{self._path.parent} is in use by {_describe(found.owner)}; stop that"
          " process, wait for its end or choose another --workdir."
        )
      if not files.remove_exactly(self._path, found.text):
        return  # Another process was faster and lives.
    except FileNotFoundError:  # Released or removed by another process.
      return
    self._say(
      f"Note: {_describe(found.owner)}, has died; its run goes on here."
    )

  def _lives(self, found: "_Found") -> bool:
    """Returns whether the owner of a claim lives, for which it may wait."""
    owner = found.owner
    if owner and owner.machine and owner.machine == self._owner.machine:
      return _is_running(owner.pid, owner.started)
    # Another host: both times are those of the disk, as clocks may differ.
    waits = False
    while files.clock(self._path.parent) - found.touched < _DEAD_AFTER_SECONDS:
      if not waits:
        self._say(
          f"Waiting up to {_DEAD_AFTER_SECONDS:.0f} seconds for a sign of life"
          f" of {_describe(found.owner)}."
        )
        waits = True
      time.sleep(_POLL_SECONDS)
      if _read(self._path).touched != found.touched:
        return True
    return False

  def _show_life(self) -> None:
    """Touches the file again and again, in a thread."""
    while not self._released.wait(_SIGN_SECONDS):
      # The disk may be read-only by now, which others report.
      with self._changing, contextlib.suppress(OSError):
        if self._released.is_set():
          return
        if self._loss():
          ident = threading.main_thread().ident
          assert ident is not None  # It is None before a thread starts.
          signal.pthread_kill(ident, signal.SIGCONT)
        elif not self._path.exists():  # Deleted by hand, but not the workdir.
          self._make()
        else:
          files.touch(self._path)

  def _loss(self) -> str:
    """Returns why this process no longer owns the workdir; "" if it does."""
    workdir = self._path.parent
    try:
      is_there = workdir.exists() and files.identity(workdir) == self._folder
      owner = _read(self._path).owner if self._path.exists() else None
    except OSError:  # The disk does not answer, or it happens just now.
      return ""
    if not is_there:
      return f"{workdir} was deleted or moved while the run used it"
    if owner in (None, self._owner):
      return ""
    return (
      f"{workdir} was taken over by {_describe(owner)}, while this"
      " process gave no sign of life"
    )

  def _raise_if_lost(self, signum: int, frame: Any) -> None:
    del signum, frame
    if (loss := self._loss()) and not shutdown.is_ending():
      raise errors.UserError(f"{loss}; this process stops and writes no more.")


class _Found(NamedTuple):
  """The contents of a claim.

  Attributes:
    text: the contents as they are.
    owner: None if the contents are damaged.
    touched: the last sign of life, in seconds, by the clock of the disk or the bucket.
  """

  text: bytes
  owner: Owner | None
  touched: float


def _describe(owner: Owner | None) -> str:
  """Returns words for an owner."""
  if owner is None:
    return "an unknown process"
  return f"process {owner.pid} on {owner.host} since {owner.since}"


def _read(path: pathlib.Path) -> _Found:
  """Returns the contents of a claim; `FileNotFoundError` without one."""
  text, touched = files.read_with_time(path)
  try:
    owner = Owner(**json.loads(text))
    return _Found(text, owner if isinstance(owner.pid, int) else None, touched)
  except (ValueError, TypeError):  # Damaged, or not yet written.
    return _Found(text, None, touched)


def _this_process() -> Owner:
  """Returns what a claim says of this process."""
  try:
    started = _stat(os.getpid())[1]
  except OSError:  # Not Linux.
    started = ""
  return Owner(
    host=socket.gethostname(),
    machine=files.machine(),
    pid=os.getpid(),
    started=started,
    since=f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
    token=uuid.uuid4().hex,
  )


def _remove_leftovers(folder: pathlib.Path, levels: Iterable[str]) -> None:
  """Removes what killed programs of this machine left unfinished.

  Those that still run keep their files, and so do those of other machines, which
  may still run.

  Args:
    folder: a workdir or the system's temporary folder.
    levels: the patterns of what stands before the names.
  """
  prefix = files.temporary_prefix()
  for level in levels:
    for path in folder.glob(f"{level}{glob.escape(prefix)}*"):
      pid = path.name.removeprefix(prefix).partition(".")[0]
      if not pid.isdigit() or _exists(int(pid)):
        continue
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        with contextlib.suppress(OSError):  # It belongs to another user.
          path.unlink()


def _exists(pid: int) -> bool:
  """Returns whether any process of this machine has an id."""
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:  # It belongs to another user.
    pass
  return True


def _is_running(pid: int, started: str) -> bool:
  """Returns whether a process of this machine still runs."""
  if not _exists(pid):
    return False
  try:
    state, has_started = _stat(pid)
  except OSError:  # Some systems hide the processes of other users.
    return True
  # A zombie (Z) has ended.
  return state != "Z" and has_started == started


def _stat(pid: int) -> tuple[str, str]:
  """Returns the state of a process and when it started; see proc_pid_stat(5)."""
  text = pathlib.Path(f"/proc/{pid}/stat").read_text()
  fields = text.rpartition(")")[2].split()  # From the third on.
  return fields[0], fields[19]
