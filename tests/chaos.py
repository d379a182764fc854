"""Faults of all kinds on tiny runs, which must end as if nothing had happened.

    python -m tests.chaos --minutes=60 --seed=0

Each episode is one run, started as a user would. It meets one or more faults, is
started again after each, and must end with the bits of a run without faults.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.runtime import checkpoints, claim, processes
from tests import command_line

STEPS, SAVE_EVERY = 80, 5

# Quick to start and to compile, with something to do in each phase of a run.
_OPTIONS = (
  "--config.augment.placement=device",
  "--config.data.parts=2",
  "--config.evaluation.protocols=retrieval,knn",
  "--config.evaluation.baselines=False",
  "--config.evaluation.train_split=train[:600]",
  "--config.evaluation.test_split=test[:97]",
)
# A signal must end a program within this many seconds, on a machine that also
# does other things. Our choice.
_LONGEST_END = 60.0
# A program that runs longer hangs. Our choice: ten times its usual length.
_LONGEST_RUN = 300.0
_FULL_DISK_BYTES = 64 * 2**20  # The file system of a disk that is filled.

_KILLED = {-signal.SIGKILL}
_STOPPED = {processes.EXIT_RESUMABLE}
_CTRL_C = {128 + signal.SIGINT}
# JAX may abort a process that lost the primary one before Python notices.
_LOST_PROCESS = {processes.EXIT_RESUMABLE, -signal.SIGABRT}


class Lost(AssertionError):
  """A fault did harm."""


class Unavailable(Exception):
  """A fault cannot be made here."""


class Lab:
  """The place of all episodes: data, compiled programs and reference runs.

  Args:
    folder: holds everything.
    data_dir: where the digits are prepared; by default inside `folder`.
    seed: of all choices.
  """

  def __init__(
    self, folder: pathlib.Path, data_dir: str | None = None, seed: int = 0
  ):
    self.folder = folder
    self.random = random.Random(seed)
    self._data_dir = data_dir or str(folder / "data")
    self._references: dict[int, pathlib.Path] = {}

  def start(self, workdir: pathlib.Path, count: int = 1) -> "list[Program]":
    """Starts a run of `count` processes."""
    args = [
      *command_line.pretraining(
        workdir, steps=STEPS, checkpoint_every=SAVE_EVERY
      ),
      *_OPTIONS,
      f"--config.train.compilation_cache={self.folder / 'compiled'}",
    ]
    start = command_line.start_pair if count == 2 else _start_alone
    return [Program(p) for p in start(*args, data_dir=self._data_dir)]

  def reference(self, count: int) -> pathlib.Path:
    """Returns the workdir of a run of `count` processes without a fault."""
    if count not in self._references:
      workdir = self.folder / f"reference_{count}"
      for program in self.start(workdir, count):
        program.end({0})
      self._references[count] = workdir
    return self._references[count]


def _start_alone(*args: str, **kwargs) -> list[subprocess.Popen]:
  return [command_line.start(*args, **kwargs)]


class Program:
  """A started program, whose end is checked."""

  def __init__(self, process: subprocess.Popen):
    self._process = process
    self.pid = process.pid

  def send(self, signum: signal.Signals) -> None:
    """Sends a signal."""
    self._process.send_signal(signum)

  def waits_for(self, condition: Callable[[], bool]) -> bool:
    """Returns whether a condition came true before the program ended."""
    while self._process.poll() is None:
      if condition():
        return True
      time.sleep(0.002)
    return False

  def end(self, codes: set[int], within: float = _LONGEST_RUN) -> str:
    """Waits for the end and returns what was printed.

    Args:
      codes: the exit codes that are right.
      within: seconds.

    Raises:
      Lost: the program ends otherwise, or prints a traceback.
    """
    try:
      output = "".join(self._process.communicate(timeout=within))
    except subprocess.TimeoutExpired as error:
      self._process.kill()
      self._process.communicate()
      raise Lost(f"still runs after {within:.0f} s") from error
    code = self._process.returncode
    if code not in codes:
      raise Lost(f"exit code {code}, not {sorted(codes)}:\n{output}")
    if "Traceback" in output or "Exception ignored" in output:
      raise Lost(f"a traceback:\n{output}")
    return output


# A fault happens to a run in a workdir, which it leaves to be started again.
Fault = Callable[[Lab, pathlib.Path], None]

# Moments --------------------------------------------------------------------


def _starting(lab: Lab, program: Program, workdir: pathlib.Path) -> bool:
  """Waits for up to as long as a program takes to its first step."""
  del workdir
  ends = time.monotonic() + lab.random.uniform(0, 12)
  return program.waits_for(lambda: time.monotonic() > ends)


def _training(lab: Lab, program: Program, workdir: pathlib.Path) -> bool:
  """Waits for a random step of the next half of a run."""
  done = _last_step(workdir)
  if done >= STEPS - 1:
    return False
  wanted = lab.random.randint(done + 1, min(done + STEPS // 2, STEPS - 1))
  return program.waits_for(lambda: _last_step(workdir) >= wanted)


def _saving(lab: Lab, program: Program, workdir: pathlib.Path) -> bool:
  """Waits for a random step, then until a checkpoint is being written."""
  return _training(lab, program, workdir) and program.waits_for(
    lambda: any(workdir.glob("checkpoints/*tmp*"))
  )


def _evaluating(lab: Lab, program: Program, workdir: pathlib.Path) -> bool:
  """Waits until features are being computed, and a little longer."""
  begun = _writes(program, workdir / "features")
  time.sleep(lab.random.uniform(0, 0.5))
  return begun


def _drawing(lab: Lab, program: Program, workdir: pathlib.Path) -> bool:
  """Waits until a figure is being written, and a little longer."""
  begun = _writes(program, workdir / "figures")
  time.sleep(lab.random.uniform(0, 1))
  return begun


def _writes(program: Program, folder: pathlib.Path) -> bool:
  """Waits until a temporary file appears that an earlier kill did not leave."""
  before = set(folder.glob(".*"))
  return program.waits_for(lambda: bool(set(folder.glob(".*")) - before))


_MOMENTS = {
  "starting": _starting,
  "training": _training,
  "saving": _saving,
  "evaluating": _evaluating,
  "drawing": _drawing,
}

# Ways to stop a program, and how it may end then --------------------------


class Stop(NamedTuple):
  """Signals, one after the other.

  Attributes:
    signals: what is sent.
    codes: the exit codes that are right.
    by_default: the exit code where Python is not yet up.
  """

  signals: tuple[signal.Signals, ...]
  codes: set[int]
  by_default: int


_STOPS = {
  "SIGKILL": Stop((signal.SIGKILL,), _KILLED, 0),
  "SIGTERM": Stop((signal.SIGTERM,), _STOPPED, -signal.SIGTERM),
  "SIGTERM twice": Stop(
    (signal.SIGTERM, signal.SIGTERM), _STOPPED, -signal.SIGTERM
  ),
  "Ctrl-C": Stop((signal.SIGINT,), _CTRL_C, -signal.SIGINT),
  "Ctrl-C twice": Stop((signal.SIGINT, signal.SIGINT), _CTRL_C, -signal.SIGINT),
  "SIGSTOP and SIGKILL": Stop((signal.SIGSTOP, signal.SIGKILL), _KILLED, 0),
}


def _stopped(stop: Stop, moment: str) -> Fault:
  """Returns the fault that a program is stopped at a moment."""

  def inject(lab: Lab, workdir: pathlib.Path) -> None:
    (program,) = lab.start(workdir)
    if not _MOMENTS[moment](lab, program, workdir):
      program.end({0})
      raise Unavailable("the run had ended before")
    for signum in stop.signals:
      program.send(signum)
      time.sleep(lab.random.choice((0, 0.01, 0.1, 0.5)))
    codes = stop.codes | {0}  # It may just have ended.
    if moment == "starting":
      codes = codes | {stop.by_default}
    program.end(codes, within=_LONGEST_END)

  return inject


# Other faults ---------------------------------------------------------------


def _second_run(lab: Lab, workdir: pathlib.Path) -> None:
  """A second run is started in the same workdir, and must be refused."""
  (first,) = lab.start(workdir)
  path = workdir / claim.FILE
  first.waits_for(
    lambda: path.exists() and f'"pid": {first.pid},' in path.read_text()
  )
  first.send(signal.SIGSTOP)  # So that it does not end before.
  (second,) = lab.start(workdir)
  output = second.end({1})
  first.send(signal.SIGCONT)
  first.end({0})
  if f"process {first.pid}" not in output:
    raise Lost(f"the refusal does not name process {first.pid}:\n{output}")


def _lost_process(lab: Lab, workdir: pathlib.Path) -> None:
  """One of two processes is killed."""
  pair = lab.start(workdir, 2)
  is_primary = lab.random.random() < 0.5
  victim, other = pair if is_primary else pair[::-1]
  if not _training(lab, victim, workdir):
    for program in pair:
      program.end({0})
    raise Unavailable("the run had ended before")
  victim.send(signal.SIGKILL)
  victim.end(_KILLED)
  other.end(_LOST_PROCESS, within=_LONGEST_END + 30)  # JAX's heartbeat.


def _flipped_byte(lab: Lab, workdir: pathlib.Path) -> None:
  """A byte of the newest checkpoint changes."""
  if not _notices_flips(lab):
    raise Unavailable("checkpoints have no checksums")
  _begin(lab, workdir)
  _flip(_newest_data(workdir / "checkpoints"), lab.random)


def _cut_file(lab: Lab, workdir: pathlib.Path) -> None:
  """A file of the newest checkpoint loses its end."""
  _begin(lab, workdir)
  path = _newest_data(workdir / "checkpoints")
  os.truncate(path, lab.random.randrange(path.stat().st_size))


def _full_disk(lab: Lab, workdir: pathlib.Path) -> None:
  """The disk fills while the run trains."""
  (program,) = lab.start(workdir)
  if not _training(lab, program, workdir):
    program.end({0})
    raise Unavailable("the run had ended before")
  ballast = workdir / "ballast"
  try:
    with ballast.open("wb", buffering=0) as file:
      while True:
        file.write(bytes(4096))
  except OSError:
    pass
  output = program.end({1})
  ballast.unlink()
  if len(re.findall("^Error: .*No space left", output, re.M)) != 1:
    raise Lost(f"no line about the full disk:\n{output}")


def _moved_workdir(lab: Lab, workdir: pathlib.Path) -> None:
  """The workdir is moved while the run trains, and back after its end."""
  (program,) = lab.start(workdir)
  if not _training(lab, program, workdir):
    program.end({0})
    raise Unavailable("the run had ended before")
  elsewhere = workdir.with_name(f"{workdir.name}_elsewhere")
  workdir.rename(elsewhere)
  output = program.end({1}, within=_LONGEST_END)
  # Until it noticed, the run may have made it again.
  shutil.rmtree(workdir, ignore_errors=True)
  elsewhere.rename(workdir)
  if len(re.findall(f"^Error: .*{workdir}", output, re.M)) != 1:
    raise Lost(f"no line about the moved workdir:\n{output}")


def _damaged_small_files(lab: Lab, workdir: pathlib.Path) -> None:
  """The results are cut and a line of the metrics is overwritten."""
  _begin(lab, workdir)
  names = ["results.json"]
  (workdir / "results.json").write_text('{"knn/top1": {"va')
  metrics = workdir / "metrics.jsonl"
  if _newest_checkpoint(workdir) < STEPS:  # Else nothing reads them again.
    names.append(metrics.name)
    first, rest = metrics.read_text().split("\n", 1)
    metrics.write_text("\0" * len(first) + "\n" + rest)
  (program,) = lab.start(workdir)
  output = program.end({0})
  for name in names:
    kept = workdir / f"{name}.damaged"
    if output.count(f"{name} is damaged") != 1 or not kept.exists():
      raise Lost(f"{name} was not kept and named once:\n{output}")
    kept.unlink()
  if metrics.name in names:  # Only the damaged line may be lost.
    metrics.write_text(first + "\n" + metrics.read_text())


def _damaged_settings(lab: Lab, workdir: pathlib.Path) -> None:
  """The settings are cut, and put back after they were refused."""
  _begin(lab, workdir)
  path = workdir / "config.json"
  text = path.read_text()
  os.truncate(path, lab.random.randrange(len(text) - 2))
  (program,) = lab.start(workdir)
  if "config.json is damaged" not in (output := program.end({1})):
    raise Lost(f"no line about the settings:\n{output}")
  path.write_text(text)


def _begin(lab: Lab, workdir: pathlib.Path) -> None:
  """Trains a few checkpoints of a run, unless it has them."""
  if _newest_checkpoint(workdir) >= 4 * SAVE_EVERY:
    return
  (program,) = lab.start(workdir)
  if not program.waits_for(lambda: _last_step(workdir) > 4 * SAVE_EVERY):
    program.end({0})
    raise Unavailable("the run had ended before")
  program.send(signal.SIGTERM)
  program.end(_STOPPED, within=_LONGEST_END)


def _newest_data(folder: pathlib.Path) -> pathlib.Path:
  """Returns the largest file of the newest checkpoint."""
  newest = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
  files = [p for p in (folder / str(newest)).rglob("*") if p.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def _flip(path: pathlib.Path, choice: random.Random) -> None:
  """Changes one bit of a file."""
  content = bytearray(path.read_bytes())
  content[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
  path.write_bytes(content)


def _notices_flips(lab: Lab) -> bool:
  """Returns whether a changed checkpoint is refused."""
  tree = {"w": np.random.default_rng(0).normal(size=10_000).astype("f")}
  with tempfile.TemporaryDirectory(dir=lab.folder) as folder:
    with checkpoints.Checkpoints(folder, keep=1) as saved:
      saved.save(1, tree)
    _flip(_newest_data(pathlib.Path(folder)), random.Random(0))
    with checkpoints.Checkpoints(folder, keep=1) as saved:
      try:
        saved.restore(tree)
      except errors.UserError:
        return True
  return False


# By name. An episode of several faults meets them in this order, since a run
# trains, evaluates and draws in this order, too.
FAULTS: Mapping[str, Fault] = {
  "flipped byte": _flipped_byte,
  "cut file": _cut_file,
  "damaged settings": _damaged_settings,
  "moved workdir": _moved_workdir,
  "lost process": _lost_process,
  "full disk": _full_disk,
  **{
    f"{name} while {moment}": _stopped(stop, moment)
    for moment in _MOMENTS
    for name, stop in _STOPS.items()
  },
  "damaged small files": _damaged_small_files,
  "second run": _second_run,
}
# These need a workdir or a reference of their own.
_ALONE = {"lost process", "full disk"}
# After the others, at most the steps are to be repeated that were made while the
# last checkpoint but one was written. A moved run trains on until it notices.
_LOSE_STEPS = {"flipped byte", "moved workdir"}


# What must hold --------------------------------------------------------------


def _steps(workdir: pathlib.Path) -> list[int]:
  """Returns the steps in `metrics.jsonl`, without a torn last line."""
  path = workdir / "metrics.jsonl"
  text = path.read_text() if path.exists() else ""
  return [json.loads(line)["step"] for line in text.split("\n")[:-1]]


def _last_step(workdir: pathlib.Path) -> int:
  return (_steps(workdir) or [0])[-1]


def _newest_checkpoint(workdir: pathlib.Path) -> int:
  """Returns the step of the newest complete checkpoint, 0 without one."""
  with checkpoints.Checkpoints(workdir / "checkpoints", keep=3) as saved:
    return saved.latest_step() or 0


def _check_end(workdir: pathlib.Path, reference: pathlib.Path) -> None:
  """Raises `Lost` unless a run ended as the reference did."""
  ours, theirs = (
    command_line.saved_leaves(folder, STEPS) for folder in (workdir, reference)
  )
  for path, leaf in theirs.items():
    if not np.array_equal(ours.get(path), leaf):
      raise Lost(f"{path} has other bits than without a fault")
  if _steps(workdir) != [*range(1, STEPS + 1)]:
    raise Lost(f"metrics.jsonl has the steps {_steps(workdir)}")
  found, expected = (
    json.loads((folder / "results.json").read_text())
    for folder in (workdir, reference)
  )
  if found != expected:
    raise Lost(f"results.json has {found}, not {expected}")
  names = {path.name for path in reference.glob("*")}
  if missing := names - {path.name for path in workdir.glob("*")}:
    raise Lost(f"{sorted(missing)} are missing")
  for picture in (reference / "figures").iterdir():
    drawn = (workdir / "figures" / picture.name).read_bytes()
    if not drawn.endswith(b"IEND\xaeB`\x82"):
      raise Lost(f"{picture.name} is not whole")
  if leftovers := [p for p in workdir.rglob("*") if _is_leftover(p)]:
    raise Lost(f"left over: {', '.join(map(str, leftovers))}")


def _is_leftover(path: pathlib.Path) -> bool:
  """Returns whether a file is one that only a running program needs."""
  name = path.name
  return name.startswith(".") or "tmp" in name or name == claim.FILE


# Episodes -------------------------------------------------------------------


class Outcome(NamedTuple):
  """What became of the faults of an episode.

  Attributes:
    by_fault: survived, lost or not injected, by the fault's name.
    text: of the line that the episode prints.
  """

  by_fault: dict[str, str]
  text: str


def episode(lab: Lab, names: Sequence[str], workdir: pathlib.Path) -> Outcome:
  """Lets a run meet faults and returns what became of them."""
  outcome: dict[str, str] = {}
  texts, most_to_repeat = [], 0
  try:
    reference = lab.reference(2 if "lost process" in names else 1)
    for name in names:
      before = _newest_checkpoint(workdir)
      outcome[name] = "lost"  # Until the opposite is known.
      try:
        FAULTS[name](lab, workdir)
        outcome[name] = "survived"
      except Unavailable as reason:
        outcome[name] = "not injected"
        texts.append(f"{name}: {reason}")
      newest = _newest_checkpoint(workdir)
      to_repeat = _last_step(workdir) - newest
      if name not in _LOSE_STEPS and (
        newest < before or to_repeat > 2 * SAVE_EVERY
      ):
        outcome[name] = "lost"
        raise Lost(f"checkpoint {newest} is the newest, {before} was before")
      most_to_repeat = max(most_to_repeat, to_repeat)
    for program in lab.start(workdir, 2 if "lost process" in names else 1):
      program.end({0})
    _check_end(workdir, reference)
  except Lost as lost:
    if "lost" not in outcome.values():  # It shows at the end only.
      outcome = {
        name: "lost" if one == "survived" else one
        for name, one in outcome.items()
      }
    texts.append(f"LOST: {lost} (kept in {workdir})")
  else:
    texts.append(f"survived, at most {most_to_repeat} steps to repeat")
  return Outcome(outcome, "; ".join(texts))


def _in_small_disk(
  lab: Lab, names: Sequence[str], workdir: pathlib.Path
) -> Outcome:
  """Runs an episode in a small file system of its own, if one can be made."""
  workdir.mkdir()
  options = ["-t", "tmpfs", "-o", f"size={_FULL_DISK_BYTES}", "tmpfs"]
  mount = subprocess.run(
    ["mount", *options, workdir], capture_output=True, text=True
  )
  if mount.returncode:
    reason = f"cannot mount a small disk: {mount.stderr.strip()}"
    return Outcome(dict.fromkeys(names, "not injected"), reason)
  try:
    return episode(lab, names, workdir)
  finally:
    subprocess.run(["umount", workdir], check=True)


def _decks(choice: random.Random, size: int):
  """Yields the faults of one episode after the other, all before any again."""
  order = {name: index for index, name in enumerate(FAULTS)}
  while True:
    names = [name for name in FAULTS if name not in _ALONE]
    choice.shuffle(names)
    hands = [names[i : i + size] for i in range(0, len(names), size)]
    hands += [[name] for name in _ALONE]
    choice.shuffle(hands)
    for hand in hands:
      yield sorted(hand, key=order.__getitem__)


def main() -> None:
  """Runs episodes for some minutes and prints what became of the faults."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--minutes", type=float, default=60)
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args()
  ends = time.monotonic() + 60 * options.minutes
  lab = Lab(pathlib.Path(tempfile.mkdtemp(prefix="chaos.")), None, options.seed)
  totals: dict[str, collections.Counter] = {
    name: collections.Counter() for name in FAULTS
  }
  for number, names in enumerate(_decks(lab.random, size=3)):
    if time.monotonic() > ends:
      break
    workdir = lab.folder / f"episode_{number}"
    begun = time.monotonic()
    run = episode if "full disk" not in names else _in_small_disk
    outcome = run(lab, names, workdir)
    for name, one in outcome.by_fault.items():
      totals[name][one] += 1
    seconds = time.monotonic() - begun
    print(
      f"{number}: {', '.join(names)}: {outcome.text}, {seconds:.0f} s",
      flush=True,
    )
    if "lost" not in outcome.by_fault.values():
      shutil.rmtree(workdir)
  columns = ("survived", "lost", "not injected")
  print(f"{'fault':36}", *(f"{column:>12}" for column in columns))
  for name, counts in totals.items():
    print(f"{name:36}", *(f"{counts[column]:12}" for column in columns))
  if any(counts["lost"] for counts in totals.values()):
    raise SystemExit(1)


if __name__ == "__main__":
  main()
