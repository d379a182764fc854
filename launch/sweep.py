"""Runs a sweep of `experiments/sweeps`, here or as jobs of SLURM.

    python launch/sweep.py --sweep=experiments/sweeps/target_decay.py \
      [--on=local|slurm] [--workdir=DIR] [--dry-run] [--config.KEY=VALUE ...]

Each run is `python -m byol_jax.main` in a workdir of its own below DIR,
`POINT/seed_N`, with `log.txt` beside its results. The same command goes on where
it was stopped, skips what is finished, and does not stop for a run that fails.
Further --config.KEY=VALUE hold for all runs; --slurm.KEY=VALUE, such as
--slurm.time=240 (minutes, needed) or --slurm.gpus_per_node=4, are submitit's.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from byol_jax import errors, sweeps

ROOT = pathlib.Path(__file__).parent.parent

# Of `python -m byol_jax.main`: the same command goes on, see docs/launching.md.
_GO_ON = (os.EX_TEMPFAIL, -signal.SIGABRT)

_MOST_JOBS = 100  # That a run may take, one after the other, as slurm.sbatch.

# In a run's workdir: the command that finished, and the job that was submitted.
_FINISHED, _JOB = "finished.txt", "job.txt"


def command(
  sweep: sweeps.Sweep,
  member: sweeps.Member,
  workdir: pathlib.Path,
  extra: Sequence[str],
) -> list[str]:
  """What a run of the sweep is."""
  return [
    sys.executable,
    "-m",
    "byol_jax.main",
    f"--config={sweep.experiment}",
    f"--workdir={workdir / member.name}",
    *(sweeps.flag(*override) for override in member.overrides.items()),
    *extra,
  ]


def is_finished(workdir: pathlib.Path, line: Sequence[str]) -> bool:
  """Whether the same command has ended well there."""
  marker = workdir / _FINISHED
  return marker.exists() and marker.read_text() == shlex.join(line[1:])


class Run:
  """One run; submitit sends it to where it is executed and calls it."""

  def __init__(self, workdir: pathlib.Path, line: Sequence[str]):
    self.workdir = workdir
    self.line = list(line)
    self._process: subprocess.Popen | None = None

  def execute(self) -> int:
    """Runs it to its end and returns its exit code."""
    self.workdir.mkdir(parents=True, exist_ok=True)
    with (self.workdir / "log.txt").open("ab") as log:
      self._process = subprocess.Popen(
        self.line,
        cwd=ROOT,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches it once, by `stop`.
        preexec_fn=_ignore_submitit,
      )
    code = self._process.wait()
    # Of a job with several tasks, the first one says so.
    if code == 0 and os.environ.get("SLURM_PROCID", "0") == "0":
      (self.workdir / _FINISHED).write_text(shlex.join(self.line[1:]))
    return code

  def __call__(self) -> None:
    """Runs it as a job of SLURM, which it leaves as failed if it failed."""
    code = self.execute()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if code in _GO_ON and restarts < _MOST_JOBS and _is_running():
      signal.raise_signal(signal.SIGUSR2)  # submitit puts it into the queue.
    elif code:
      raise RuntimeError(f"{self.workdir} ended with {code}, see its log.txt")

  def stop(self) -> None:
    """Tells it to save and end."""
    if self._process:
      self._process.terminate()

  def checkpoint(self) -> Any:
    """What submitit puts into the queue when time is up, after saving."""
    import submitit  # Only where it runs.

    if self._process:
      self.stop()
      # Called from a signal's handler amid `wait`, which a second one would
      # wait for.
      with contextlib.suppress(ChildProcessError):  # Ended before.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
    return submitit.helpers.DelayedSubmission(Run(self.workdir, self.line))


def _ignore_submitit() -> None:
  """Its signal reaches all processes of a job and would kill those unaware."""
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def run_here(runs: Sequence[Run]) -> list[str]:
  """One run after the other; returns what is to be said of those that failed."""
  failed = []
  for number, run in enumerate(runs, 1):
    for signum in (signal.SIGINT, signal.SIGTERM):
      signal.signal(signum, lambda *_, run=run: run.stop())
    print(f"[{number}/{len(runs)}] {run.workdir}", flush=True)
    began, code = time.monotonic(), run.execute()
    if code in _GO_ON:
      print("Stopped; the same command goes on.")
      sys.exit(os.EX_TEMPFAIL)
    if code:
      failed.append(f"{run.workdir} ended with {code}, see its log.txt")
    minutes = (time.monotonic() - began) / 60
    print(f"  {'failed' if code else 'done'}, {minutes:.1f} min", flush=True)
  return failed


def _is_queued(workdir: pathlib.Path) -> bool:
  """Whether SLURM still has the job that was submitted for a workdir."""
  job = workdir / _JOB
  if not job.exists():
    return False
  return bool(_state(job.read_text()))


def _state(job: str) -> str:
  """What SLURM says of a job: RUNNING and so on, empty if it has forgotten it."""
  asked = subprocess.run(
    ["squeue", "--noheader", "--format=%T", "--jobs", job],
    capture_output=True,
    text=True,
  )
  if asked.returncode and "Invalid job id" not in asked.stderr:
    raise errors.UserError(
      f"squeue does not answer: {asked.stderr.strip()}; try again later, as runs"
      " that are in the queue would be submitted twice."
    )
  return asked.stdout.strip()


def _is_running() -> bool:
  """Whether this job is, and was not cancelled."""
  return _state(os.environ["SLURM_JOB_ID"]) == "RUNNING"


def submit(
  runs: Sequence[Run], workdir: pathlib.Path, parameters: dict[str, Any]
) -> None:
  """Gives runs to SLURM, those that it already has excepted, and leaves."""
  try:
    import submitit
  except ImportError as error:
    raise errors.UserError(
      "--on=slurm needs submitit; pip install 'byol_jax[launch]'."
    ) from error
  if "slurm_time" not in parameters:
    raise errors.UserError(
      "--slurm.time is missing; give the minutes that a run may take at a time,"
      " such as --slurm.time=240: a longer one goes on in the next job."
    )
  waiting = [run for run in runs if not _is_queued(run.workdir)]
  if len(waiting) < len(runs):
    print(f"{len(runs) - len(waiting)} are in the queue already.")
  if not waiting:
    return
  executor = submitit.AutoExecutor(
    workdir / "submitit", cluster="slurm", slurm_max_num_timeout=_MOST_JOBS
  )
  executor.update_parameters(**{"name": workdir.name, **parameters})
  with executor.batch():
    jobs = [executor.submit(run) for run in waiting]
  for run, job in zip(waiting, jobs, strict=True):
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / _JOB).write_text(job.job_id)
    print(f"{job.job_id}  {run.workdir}")


def _parameter(argument: str) -> tuple[str, Any]:
  """submitit's name and value of --slurm.KEY=VALUE."""
  key, _, value = argument.removeprefix("--slurm.").partition("=")
  return f"slurm_{key}", int(value) if value.isdigit() else value


def _describe(sweep: sweeps.Sweep, path: pathlib.Path) -> None:
  """Leaves beside the runs what the report needs to know of them."""
  path.mkdir(parents=True, exist_ok=True)
  (path / sweeps.FILE).write_text(sweeps.to_json(sweep))


def main(argv: Sequence[str]) -> int:
  """Returns the exit code: 0 if all is done, or submitted."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--sweep", required=True)
  parser.add_argument("--on", choices=("local", "slurm"), default="local")
  parser.add_argument("--workdir", type=pathlib.Path)
  parser.add_argument("--dry-run", action="store_true")
  options, rest = parser.parse_known_args(argv)
  for argument in rest:
    if (
      not argument.startswith(("--config.", "--slurm.")) or "=" not in argument
    ):
      parser.error(
        f"{argument!r} is unknown; write --config.KEY=VALUE or"
        " --slurm.KEY=VALUE."
      )
  extra = [argument for argument in rest if argument.startswith("--config.")]
  parameters = dict(
    _parameter(argument) for argument in rest if argument.startswith("--slurm.")
  )
  try:
    sweep = sweeps.load(options.sweep)
    name = pathlib.Path(options.sweep).stem
    workdir = (options.workdir or pathlib.Path("runs/sweeps") / name).absolute()
    runs = [
      Run(workdir / member.name, command(sweep, member, workdir, extra))
      for member in sweeps.members(sweep)
    ]
    left = [run for run in runs if not is_finished(run.workdir, run.line)]
    print(f"{len(runs)} runs, {len(runs) - len(left)} finished: {workdir}")
    if options.dry_run:
      print("\n".join(shlex.join(run.line) for run in left))
      return 0
    _describe(sweep, workdir)
    if options.on == "slurm":
      submit(left, workdir, parameters)
      return 0
    failed = run_here(left)
  except errors.UserError as error:
    print(f"Error: {error}", file=sys.stderr)
    return 1
  for line in failed:
    print(f"Error: {line}", file=sys.stderr)
  if not failed:
    print(
      f"Draw it: python -m byol_jax.main --config={sweep.experiment}"
      f" --mode=report --workdir={workdir}"
    )
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
