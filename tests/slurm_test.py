"""Training as a job of a real SLURM, which the tests start and stop.

It needs Debian's packages slurm-wlm and munge, and root; see .ci/run.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

from tests import command_line

ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
DAEMONS = ("munged", "slurmctld", "slurmd")

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not all(map(shutil.which, DAEMONS)),
    reason="SLURM is not installed: apt-get install slurm-wlm munge",
  ),
  pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
]

# One node of two cores, whatever the machine has, without accounting, cgroups
# or plugins; its daemons cannot be reached from elsewhere. JAX's processes meet
# at a port that follows from the job's id, so jobs do not start from 1.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
FirstJobId={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=3600
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2
PartitionName=test Nodes=localhost Default=YES State=UP
"""


def _free_ports(number: int) -> list[int]:
  with contextlib.ExitStack() as sockets:
    listening = [
      sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
      for _ in range(number)
    ]
    return [each.getsockname()[1] for each in listening]


def wait_until(condition, what: str, seconds: float = 120):
  """Waits until a condition is true and returns its value."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    if answer := condition():
      return answer
    time.sleep(0.2)
  raise TimeoutError(f"After {seconds} seconds still not: {what}.")


class Cluster:
  """A SLURM of one node.

  Attributes:
    env: the environment in which SLURM's commands, and whatever calls them, use
      this cluster, and `python` is the one that runs the tests.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self.env = command_line.environment() | {
      "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
      "SLURM_CONF": str(folder / "slurm.conf"),
    }

  @contextlib.contextmanager
  def running(self):
    """Starts the daemons; at the end stops them and all jobs."""
    for name in ("state", "spool"):
      (self._folder / name).mkdir()
    controller_port, node_port = _free_ports(2)
    (self._folder / "slurm.conf").write_text(
      CONFIGURATION.format(
        folder=self._folder,
        host=socket.gethostname(),
        controller_port=controller_port,
        node_port=node_port,
      )
    )
    key = self._folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    with contextlib.ExitStack() as daemons:
      daemons.enter_context(
        self._daemon(
          "munged",
          "--foreground",
          "--force",  # Even if others may write to the folder.
          *(
            f"--{name}={self._folder}/munge.{name.removesuffix('-file')}"
            for name in ("key-file", "socket", "pid-file", "seed-file")
          ),
        )
      )
      wait_until((self._folder / "munge.socket").exists, "munged listens")
      daemons.enter_context(self._daemon("slurmctld", "-D"))
      daemons.enter_context(self._daemon("slurmd", "-D", "-N", "localhost"))
      wait_until(lambda: "idle" in self._state_of_node(), "the node is idle")
      daemons.callback(self._end_jobs)
      yield self

  @contextlib.contextmanager
  def _daemon(self, *command: str):
    with (self._folder / f"{command[0]}.log").open("w") as log:
      process = subprocess.Popen(
        command, env=self.env, stdout=log, stderr=subprocess.STDOUT
      )
      try:
        yield
      finally:
        process.terminate()
        try:
          process.wait(30)
        except subprocess.TimeoutExpired:
          process.kill()
          process.wait()

  def _end_jobs(self) -> None:
    self.call("scancel", "--user=root")
    wait_until(lambda: not self.call("squeue", "--noheader"), "all jobs ended")

  def _state_of_node(self) -> str:
    done = subprocess.run(
      ["sinfo", "--noheader", "--format=%t"],
      env=self.env,
      capture_output=True,
      text=True,
    )
    return done.stdout  # Nothing yet while the controller starts.

  def call(self, *command: str, **env: str) -> str:
    """Returns the output of one of SLURM's commands."""
    done = subprocess.run(
      command,
      cwd=command_line.ROOT,
      env=self.env | env,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()

  def job(self, job: str) -> dict[str, str]:
    """Returns what SLURM shows of a job, such as JobState and Restarts."""
    shown = self.call("scontrol", "show", "job", job)
    return dict(re.findall(r"(\S+?)=(\S*)", shown))

  def follow(self, job: str, log: pathlib.Path, until, what: str) -> None:
    """Waits for a condition, and fails at once if the job ends without it."""

    def reached() -> bool:
      state = self.job(job)[
        "JobState"
      ]  # First, as the job may end after it met.
      met = until()
      assert met or state not in ENDS, (what, state, log.read_text())
      return met

    wait_until(reached, what, seconds=600)

  def wait_for(self, job: str, log: pathlib.Path, state: str) -> None:
    """Waits until a job is in a state; fails if it ends in another."""
    self.follow(
      job,
      log,
      lambda: self.job(job)["JobState"] == state,
      f"the job is {state}",
    )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
  with Cluster(tmp_path_factory.mktemp("slurm")).running() as cluster:
    yield cluster


def test_a_job_that_is_told_to_stop_requeues_itself_and_ends_its_run(
  cluster, tmp_path, digits_dir
):
  log, metrics = tmp_path / "job.log", tmp_path / "run" / "metrics.jsonl"
  steps = 60
  job = cluster.call(
    "sbatch",
    "--parsable",
    "--ntasks=2",
    f"--output={log}",
    "launch/slurm.sbatch",
    *command_line.TINY,
    f"--config.train.steps={steps}",
    "--config.log.every_steps=1",
    "--config.evaluation.protocols=knn",
    "--config.evaluation.baselines=False",
    f"--config.train.compilation_cache={tmp_path / 'compiled'}",
    f"--workdir={metrics.parent}",
    TFDS_DATA_DIR=digits_dir,
  )
  cluster.follow(
    job,
    log,
    lambda: metrics.exists() and metrics.read_text().count("\n") >= 5,
    "five steps are done",
  )
  cluster.call(
    "scancel", "--signal=TERM", job
  )  # To the steps, as when time is up.
  cluster.wait_for(job, log, "PENDING")
  stopped_after = metrics.read_text().count("\n")
  assert 5 <= stopped_after < steps
  assert (metrics.parent / "checkpoints" / str(stopped_after)).is_dir()
  # SLURM would let it wait for two minutes. In the second in which it was ended
  # the node would refuse it.
  cluster.call("scontrol", "update", f"JobId={job}", "StartTime=now+3")
  cluster.wait_for(job, log, "COMPLETED")

  assert cluster.job(job)["Restarts"] == "1"
  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  assert [row["step"] for row in rows] == list(range(1, steps + 1))
  said = log.read_text()
  assert "back into the queue" in said
  assert (
    said.count("2 cpu devices") == 2
  )  # Once before and once after it resumed.
  assert said.count("Done: ") == 1
  for bad in ("Traceback", "Warning", "WARNING", "Error"):
    assert bad not in said, said


SWEEP = """
from byol_jax.sweeps import Point, Sweep

def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={name: Point(float(name), {"ema.base": float(name)})
            for name in ("0.5", "0.9", "0.99")},
    seeds=(0,),
  )
"""


def test_a_sweep_of_three_is_stopped_goes_on_and_ends(
  cluster, tmp_path, digits_dir
):
  (tmp_path / "decay.py").write_text(SWEEP)
  workdir = tmp_path / "sweep"
  launch = [
    sys.executable,
    "launch/sweep.py",
    f"--sweep={tmp_path}/decay.py",
    "--on=slurm",
    f"--workdir={workdir}",
    "--slurm.time=20",
    *command_line.TINY[1:],
    "--config.train.steps=40",
    "--config.log.every_steps=1",
    "--config.evaluation.protocols=knn",
    "--config.evaluation.baselines=False",
  ]
  said = cluster.call(*launch, TFDS_DATA_DIR=digits_dir)
  jobs = re.findall(r"^(\d+_\d+)  ", said, re.M)
  assert len(jobs) == 3
  assert "3 are in the queue already" in cluster.call(*launch)

  stopped = workdir / "0.5" / "seed_0"
  log, metrics = stopped / "log.txt", stopped / "metrics.jsonl"
  cluster.follow(
    jobs[0],
    log,
    lambda: metrics.exists() and metrics.read_text().count("\n") >= 5,
    "five steps are done",
  )
  cluster.call("scancel", "--signal=USR2", jobs[0])  # As when its time is up.
  cluster.wait_for(jobs[0], log, "PENDING")
  assert "run the same command again" in log.read_text()
  cluster.call("scontrol", "update", f"JobId={jobs[0]}", "StartTime=now+3")
  for job in jobs:
    cluster.wait_for(job, log, "COMPLETED")

  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  assert [row["step"] for row in rows] == [*range(1, 41)]
  assert "3 runs, 3 finished" in cluster.call(*launch)
  for run in workdir.glob("*/seed_0"):
    assert "Traceback" not in (run / "log.txt").read_text()
