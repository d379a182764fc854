"""Runs a sweep of `experiments/sweeps`, on this machine or as SLURM jobs.

    python launch/sweep.py --sweep=experiments/sweeps/target_decay.py \
      [--on=local|slurm] [--workdir=DIR] [--dry-run] [--config.KEY=VALUE ...]

Each run is `python -m byol_jax.main` in its own workdir DIR/POINT/seed_N, which
also holds its `log.txt`. A run that fails does not stop the sweep. The same
command resumes a sweep that was stopped and skips its finished runs.
--config.KEY=VALUE applies to all runs. --slurm.KEY=VALUE is passed to submitit,
for example --slurm.time=240 (minutes, required) or --slurm.gpus_per_node=4.
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
from byol_jax.runtime import files

ROOT = pathlib.Path(__file__).parent.parent

# Exit codes of `python -m byol_jax.main` after which the same command resumes
# the run, see docs/launching.md.
_RESUMABLE = (os.EX_TEMPFAIL, -signal.SIGABRT)

_MAX_JOBS = 100  # One after the other for a run; as in slurm.sbatch.

# In a run's workdir: the command that finished, and the id of its SLURM job.
_FINISHED, _JOB = "finished.txt", "job.txt"


def command(
  sweep: sweeps.Sweep,
  member: sweeps.Member,
  workdir: pathlib.Path,
  extra: Sequence[str],
) -> list[str]:
  """Returns the command line of one run.

  Args:
    sweep: the sweep.
    member: the run.
    workdir: of the sweep.
    extra: further flags.
  """
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
  """Returns whether a command has already ended with 0 in a workdir."""
  marker = workdir / _FINISHED
  return marker.exists() and marker.read_text() == shlex.join(line[1:])


class Run:
  """One run of a sweep, which submitit can pickle and call.

  Args:
    workdir: of the run.
    line: its command.
  """

  def __init__(self, workdir: pathlib.Path, line: Sequence[str]):
    self.workdir = workdir
    self.line = list(line)
    self._process: subprocess.Popen | None = None

  def execute(self) -> int:
    """Runs the command to its end and returns its exit code."""
    self.workdir.mkdir(parents=True, exist_ok=True)
    with (self.workdir / "log.txt").open("ab") as log:
      self._process = subprocess.Popen(
        self.line,
        cwd=ROOT,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Only `stop` sends it signals.
        preexec_fn=_ignore_submitit,
      )
    code = self._process.wait()
    # In a job of several tasks, only the first one marks the run.
    if code == 0 and os.environ.get("SLURM_PROCID", "0") == "0":
      (self.workdir / _FINISHED).write_text(shlex.join(self.line[1:]))
    return code

  def __call__(self) -> None:
    """Runs as a SLURM job, which is queued again if the run is resumable.

    Raises:
      RuntimeError: the run failed, so that SLURM marks the job as failed.
    """
    code = self.execute()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if code in _RESUMABLE and restarts < _MAX_JOBS and _is_running():
      signal.raise_signal(signal.SIGUSR2)  # submitit queues the job again.
    elif code:
      raise RuntimeError(_failure(self, code))

  def stop(self) -> None:
    """Tells the run to save and end."""
    if self._process:
      self._process.terminate()

  def checkpoint(self) -> Any:
    """Returns the job that submitit queues when time is up, after saving."""
    import submitit  # Optional; installed wherever this method is called.

    if self._process:
      self.stop()
      # submitit calls this from a signal handler inside `Popen.wait`, whose
      # lock a second `wait` could never take.
      with contextlib.suppress(ChildProcessError):  # It has already ended.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
    return submitit.helpers.DelayedSubmission(Run(self.workdir, self.line))


def _failure(run: Run, code: int) -> str:
  return f"{run.workdir} ended with {code}, see its log.txt"


def _ignore_submitit() -> None:
  """Ignores submitit's signal, which reaches every process of a job."""
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def run_here(runs: Sequence[Run]) -> list[str]:
  """Executes runs one after the other.

  Exits with the resumable code if a run was stopped.

  Args:
    runs: in their order.

  Returns:
    One message per failed run.
  """
  failed = []
  for number, run in enumerate(runs, 1):
    for signum in (signal.SIGINT, signal.SIGTERM):
      signal.signal(signum, lambda *_, run=run: run.stop())
    print(f"[{number}/{len(runs)}] {run.workdir}", flush=True)
    began, code = time.monotonic(), run.execute()
    if code in _RESUMABLE:
      print("Stopped; run the same command again to resume.")
      sys.exit(os.EX_TEMPFAIL)
    if code:
      failed.append(_failure(run, code))
    minutes = (time.monotonic() - began) / 60
    print(f"  {'failed' if code else 'done'}, {minutes:.1f} min", flush=True)
  return failed


def _is_queued(workdir: pathlib.Path) -> bool:
  """Returns whether SLURM still has the last job of a workdir."""
  job = workdir / _JOB
  return job.exists() and bool(_state(job.read_text()))


def _state(job: str) -> str:
  """Returns a job's state, such as RUNNING; empty if SLURM has forgotten it."""
  done = subprocess.run(
    ["squeue", "--noheader", "--format=%T", "--jobs", job],
    capture_output=True,
    text=True,
  )
  if done.returncode and "Invalid job id" not in done.stderr:
    raise errors.UserError(
      f"squeue fails: {done.stderr.strip()}; try again later, since runs that"
      " are already in the queue would be submitted twice."
    )
  return done.stdout.strip()


def _is_running() -> bool:
  """Returns whether this process' job still runs, and was not cancelled."""
  return _state(os.environ["SLURM_JOB_ID"]) == "RUNNING"


def submit(
  runs: Sequence[Run], workdir: pathlib.Path, parameters: dict[str, Any]
) -> None:
  """Submits runs that are not in the queue yet, and returns at once.

  Args:
    runs: in their order.
    workdir: of the sweep.
    parameters: submitit's names and values; `slurm_time` is required.

  Raises:
    UserError: submitit or `slurm_time` is missing, or SLURM does not answer.
  """
  try:
    import submitit
  except ImportError as error:
    raise errors.UserError(
      "--on=slurm needs submitit; pip install 'byol_jax[launch]'."
    ) from error
  if "slurm_time" not in parameters:
    raise errors.UserError(
      "--slurm.time is missing; give the minutes of one job, such as"
      " --slurm.time=240: a run that takes longer continues in another job."
    )
  waiting = [run for run in runs if not _is_queued(run.workdir)]
  if len(waiting) < len(runs):
    print(f"{len(runs) - len(waiting)} are in the queue already.")
  if not waiting:
    return
  executor = submitit.AutoExecutor(
    workdir / "submitit", cluster="slurm", slurm_max_num_timeout=_MAX_JOBS
  )
  executor.update_parameters(**{"name": workdir.name, **parameters})
  with executor.batch():
    jobs = [executor.submit(run) for run in waiting]
  for run, job in zip(waiting, jobs, strict=True):
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / _JOB).write_text(job.job_id)
    print(f"{job.job_id}  {run.workdir}")


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Returns this program's options, and the flags that are passed on."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--sweep", required=True)
  parser.add_argument("--on", choices=("local", "slurm"), default="local")
  parser.add_argument("--workdir")
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
  return options, rest


def _slurm_parameter(argument: str) -> tuple[str, Any]:
  """Returns submitit's name and value of --slurm.KEY=VALUE."""
  key, _, value = argument.removeprefix("--slurm.").partition("=")
  return f"slurm_{key}", int(value) if value.isdigit() else value


def _start(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Runs or submits the unfinished runs of a sweep; returns the exit code."""
  sweep = sweeps.load(options.sweep)
  name = pathlib.Path(options.sweep).stem
  workdir = files.to_path(options.workdir or f"runs/sweeps/{name}")
  if files.is_in_bucket(workdir):
    raise errors.UserError(
      f"--workdir={workdir} must be on a disk, as the logs of the runs grow there;"
      " only byol_jax.main writes to buckets."
    )
  workdir = workdir.absolute()
  extra = [argument for argument in rest if argument.startswith("--config.")]
  runs = [
    Run(workdir / member.name, command(sweep, member, workdir, extra))
    for member in sweeps.members(sweep)
  ]
  left = [run for run in runs if not is_finished(run.workdir, run.line)]
  print(f"{len(runs)} runs, {len(runs) - len(left)} finished: {workdir}")
  if options.dry_run:
    print("\n".join(shlex.join(run.line) for run in left))
    return 0
  with files.atomic_write(
    workdir / sweeps.FILE, "choose another --workdir"
  ) as file:
    file.write_text(sweeps.to_json(sweep))  # For the report.
  if options.on == "slurm":
    slurm = [argument for argument in rest if argument.startswith("--slurm.")]
    submit(left, workdir, dict(map(_slurm_parameter, slurm)))
    return 0
  failed = run_here(left)
  for line in failed:
    print(f"Error: {line}", file=sys.stderr)
  if not failed:
    print(
      f"Draw it: python -m byol_jax.main --config={sweep.experiment}"
      f" --mode=report --workdir={workdir}"
    )
  return 1 if failed else 0


def main(argv: Sequence[str]) -> int:
  """Returns the exit code: 0 if all runs are done or submitted."""
  options, rest = _parse(argv)
  try:
    return _start(options, rest)
  except errors.UserError as error:
    print(f"Error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
