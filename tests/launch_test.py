"""The scripts in launch/, with stand-ins for the programs they start."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time

import pytest

from tests import command_line

SCRIPTS = sorted(
  path
  for path in (command_line.ROOT / "launch").iterdir()
  if path.suffix in (".sh", ".sbatch")
)
CONFIG = "--config=experiments/quickstart.py"
TPU = ("launch/tpu_pod.sh", "--dry-run", "--name=pod", "--zone=here")
PAGE = (command_line.ROOT / "docs" / "launching.md").read_text()
MULTI_GPU = "launch/multi_gpu.sh"
SLURM = "launch/slurm.sbatch"
JOB = {"SLURM_JOB_ID": "7"}

# Records its call, and exits with the first of the codes in a file.
STAND_IN = """#!/usr/bin/env bash
cd "{folder}"
echo "$(basename "$0") $*" >>calls
[[ -s codes ]] || exit 0
code=$(head -n 1 codes)
sed -i 1d codes
exit "$code"
"""


class Machine:
  """Runs scripts where python, srun, scontrol and gcloud are stand-ins."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self.replace(STAND_IN, "python", "srun", "gcloud")
    # SLURM puts a job back by ending its script.
    self.replace(STAND_IN.split("[[")[0], "scontrol")
    self.env = {
      "PATH": f"{folder}:{os.environ['PATH']}",
      "HOME": str(folder),
    }

  def replace(self, text: str, *names: str) -> None:
    for name in names:
      (self._folder / name).write_text(text.format(folder=self._folder))
      (self._folder / name).chmod(0o755)

  def start(self, *command: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
      ["bash", *command],
      cwd=command_line.ROOT,
      env=self.env | env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *command: str, codes=(), **env: str):
    (self._folder / "codes").write_text("".join(f"{code}\n" for code in codes))
    (self._folder / "calls").write_text("")
    process = self.start(*command, **env)
    stdout, stderr = process.communicate(timeout=20)
    return subprocess.CompletedProcess(
      command, process.returncode, stdout, stderr
    )

  @property
  def calls(self) -> list[str]:
    return (self._folder / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


def test_there_is_a_script_for_every_kind_of_machine():
  assert [path.name for path in SCRIPTS] == [
    "multi_gpu.sh",
    "slurm.sbatch",
    "tpu_pod.sh",
  ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  shellcheck = pathlib.Path(sysconfig.get_path("scripts")) / "shellcheck"
  for command in (["bash", "-n"], [shellcheck]):
    done = subprocess.run([*command, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_shows_how_to_use_it(script, machine):
  done = machine.run(str(script), "--help")
  assert done.returncode == 0
  assert f"launch/{script.name}" in done.stdout
  assert machine.calls == []
  assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
  "command",
  re.findall(r"^    (?:sbatch .*)?(launch/.*)$", PAGE, re.M),
  ids=lambda command: command[:40],
)
def test_what_the_page_tells_people_to_type_is_understood(command, machine):
  env = re.findall(r"(\w+)=(\S+)", re.search("    export (.*)", PAGE)[1])
  script, *arguments = shlex.split(command)
  if script == SLURM:
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    done = machine.run(
      script, *arguments, **JOB, **(array if "cifar10" in command else {})
    )
    assert len(machine.calls) == 1
  else:
    done = machine.run(script, "--dry-run", *arguments, **dict(env))
  assert done.returncode == 0, done.stderr
  for path in re.findall(r"--config=([^:\s]+)", command):
    assert (command_line.ROOT / path).is_file()


def test_the_page_names_every_script():
  for script in (command_line.ROOT / "launch").iterdir():
    assert script.is_dir() or f"launch/{script.name}" in PAGE


# A command, its environment, and parts of the one line that it prints.
MISTAKES = {
  "multi_gpu, no configuration": ([MULTI_GPU], {}, ["--config", "try"]),
  "multi_gpu, GPUs": (
    [MULTI_GPU, CONFIG],
    {"GPUS": "all"},
    ["GPUS=all", "GPUS=0,1"],
  ),
  "multi_gpu, restarts": (
    [MULTI_GPU, CONFIG],
    {"RESTARTS": "often"},
    ["RESTARTS=often", "10"],
  ),
  "slurm, elsewhere": ([SLURM, CONFIG], {}, [f"sbatch {SLURM} {CONFIG}"]),
  "slurm, restarts": (
    [SLURM, CONFIG],
    {"SLURM_JOB_ID": "7", "RESTARTS": "-1"},
    ["RESTARTS=-1", "100"],
  ),
  "slurm, an array in one workdir": (
    [SLURM, CONFIG],
    {
      "SLURM_JOB_ID": "7",
      "SLURM_ARRAY_JOB_ID": "7",
      "SLURM_ARRAY_TASK_ID": "0",
    },
    ["--workdir"],
  ),
  "slurm, idle GPUs": (
    [SLURM, CONFIG],
    {
      "SLURM_JOB_ID": "7",
      "SLURM_JOB_NUM_NODES": "2",
      "SLURM_GPUS_ON_NODE": "8",
    },
    ["2 processes", "16 GPUs", "--ntasks-per-node=8"],
  ),
  "tpu, no command": ([*TPU], {}, ["create", "delete"]),
  "tpu, unknown command": ([*TPU, "destroy"], {}, ["destroy", "delete"]),
  "tpu, misspelt option": ([TPU[0], "--nmae=x"], {}, ["--nmae", "--help"]),
  "tpu, no name": ([TPU[0], "log"], {}, ["--name", "TPU_NAME"]),
  "tpu, no zone": ([TPU[0], "--name=x", "log"], {}, ["--zone", "ZONE"]),
  "tpu, no type": ([*TPU, "create"], {}, ["--type", "ACCELERATOR_TYPE"]),
  "tpu, no version": (
    [*TPU, "--type=v3-32", "create"],
    {},
    ["--version", "RUNTIME_VERSION"],
  ),
  "tpu, no configuration": ([*TPU, "run"], {}, ["--config", "try"]),
  "tpu, nothing to train": ([*TPU, "train"], {}, ["--config", "try train"]),
  "tpu, no bucket": ([*TPU, "run", CONFIG], {}, ["--bucket", "BUCKET"]),
  "tpu, nothing to fetch from": ([*TPU, "fetch"], {}, ["--bucket", "BUCKET"]),
  "tpu, a folder as bucket": (
    [*TPU, "--bucket=/tmp", "log"],
    {},
    ["--bucket=/tmp", "gs://"],
  ),
  "tpu, no type to train on": (
    [*TPU, "--bucket=gs://b", "train", CONFIG],
    {},
    ["--type", "ACCELERATOR_TYPE"],
  ),
  "tpu, restarts": ([*TPU, "log"], {"RESTARTS": "x"}, ["RESTARTS=x", "100"]),
  "tpu, wait": ([*TPU, "log"], {"WAIT": "1m"}, ["WAIT=1m", "120"]),
  "tpu, stray argument": ([*TPU, "log", "all"], {}, ["log", "all"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_gets_one_helpful_line_and_starts_nothing(name, machine):
  command, env, expected = MISTAKES[name]
  done = machine.run(*command, **env)
  assert done.returncode == 1
  assert done.stdout == ""
  assert done.stderr.startswith("Error: ")
  assert done.stderr.count("\n") == 1, done.stderr
  for part in expected:
    assert part in done.stderr
  assert machine.calls == []


def test_a_tpu_needs_gcloud(machine, tmp_path):
  (tmp_path / "gcloud").unlink()
  (tmp_path / "bash").symlink_to(shutil.which("bash"))
  done = machine.run(TPU[0], *TPU[2:], "log", PATH=str(tmp_path))
  assert done.returncode == 1
  assert "gcloud is not installed" in done.stderr


# A command, and a part of each line that it prints.
START = (
  ".venv/bin/python -m byol_jax.main --config=a.py:300 --workdir={}; echo $?"
  " >exit_code"
)
DRY_RUNS = {
  "--flags=--spot create": [
    "tpu-vm create pod --zone=here --accelerator-type=v3-32 --version=base"
    " --spot"
  ],
  "setup": [
    "tar --create",
    "tpu-vm scp /tmp/byol_jax-pod.tar.gz pod:byol_jax.tar.gz --zone=here"
    " --worker=all",
    "uv pip install --quiet --python=.venv/bin/python -r requirements.txt -e"
    " '.[tpu,gcs]'",
  ],
  "run --config=a.py:300 --workdir='b c'": [START.format("b\\ c")],
  "run --config=a.py:300": [START.format("gs://mine/runs/a-300")],
  "log": ["--worker=all --command=tail -n 20 -F byol_jax/run.log"],
  "stop": ["--worker=all --command=pkill -TERM -f '[p]ython -m byol_jax.main'"],
  "fetch": ["gcloud storage cp --recursive gs://mine/runs ."],
  "delete": ["tpu-vm delete pod --zone=here"],
}


@pytest.mark.parametrize("action", DRY_RUNS)
def test_a_dry_run_prints_what_the_command_would_run(action, machine):
  options = ("--type=v3-32", "--version=base", "--bucket=gs://mine")
  arguments = (*options, *shlex.split(action))
  dry = machine.run(*TPU, *arguments)
  assert dry.returncode == 0, dry.stderr
  assert machine.calls == []
  lines = [" ".join(shlex.split(line)) for line in dry.stdout.splitlines()]
  assert len(lines) == len(DRY_RUNS[action])
  for line, expected in zip(lines, DRY_RUNS[action], strict=True):
    assert expected in line

  if action != "setup":  # Which packs the repository.
    wet = machine.run(TPU[0], *TPU[2:], *arguments)
    assert wet.stdout == dry.stdout
    assert machine.calls == lines


# A TPU of one host, which a folder stands for: commands for it run there.
TPU_STAND_IN = """#!/usr/bin/env bash
cd "{folder}"
all=$*
case $all in
  *" describe "*) cat state ;;
  *" create "*)
    echo "create ${{all#*--version=base}}" >>calls
    outcome=$(head -n 1 creations)
    sed -i 1d creations
    [[ -z $outcome ]] || {{ echo "$outcome" >&2; exit 1; }}
    echo READY >state
    ;;
  *" delete "*) echo delete >>calls; rm -rf state host ;;
  *" scp "*) mkdir -p host/byol_jax/.venv/bin; cp python host/byol_jax/.venv/bin ;;
  *"uv venv"*) echo install >>calls ;;
  *" ssh "*)
    [[ $(cat state) == READY ]] || exit 255
    [[ $all != *"program running"* ]] || echo >>looks
    mkdir -p host; cd host; exec bash -c "${{all#*--command=}}" ;;
esac
"""
# Ends with the first of the codes in a file, or by what a word there says.
PROGRAM_STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"{folder}/calls"
code=$(head -n 1 "{folder}/codes")
sed -i 1d "{folder}/codes"
case $code in
  preempted) echo PREEMPTED >"{folder}/state" ;;
  lost) kill -9 $PPID ;;
  slow) while (($(wc -l <"{folder}/looks") < 3)); do sleep 0.02; done ;;
  *) exit "$code" ;;
esac
"""
TRAIN = (
  *("launch/tpu_pod.sh", "--name=pod", "--zone=here", "--type=v3-32"),
  *("--version=base", "--flags=--spot", "--bucket=gs://mine/"),
  *("train", CONFIG, "--config.seed=3"),
)
STARTED = f"-m byol_jax.main {CONFIG} --config.seed=3"


@pytest.fixture
def tpu(machine, tmp_path):
  machine.replace(TPU_STAND_IN, "gcloud")
  machine.replace(PROGRAM_STAND_IN, "python")
  machine.replace("#!/usr/bin/env bash\n", "tar")
  machine.env |= {"WAIT": "0.1"}
  for name in ("creations", "looks"):
    (tmp_path / name).write_text("")
  return machine


@pytest.mark.parametrize(
  ("codes", "restarts", "expected"),
  [
    ([0], "9", 0),
    (["preempted", 75, "lost", 134, 0], "9", 0),
    ([1], "9", 1),
    ([75, 75, 75, 0], "2", 75),
  ],
  ids=str,
)
def test_a_tpu_trains_until_the_run_is_finished_or_the_user_must_act(
  tpu, codes, restarts, expected
):
  done = tpu.run(*TRAIN, codes=codes, RESTARTS=restarts)
  assert done.returncode == expected, done.stderr
  started = f"{STARTED} --workdir=gs://mine/runs/quickstart"
  calls = ["create  --spot"]
  for code in codes[: int(restarts) + 1]:
    calls += ["install", started]
    if code == "preempted":
      calls += ["delete", "create  --spot"]
  assert tpu.calls == calls
  assert (
    done.stderr.count("Error: ") == done.stderr.count("\n") == (expected > 0)
  )
  assert "resumes" in done.stderr or expected != 75
  assert "mistake" in done.stderr or expected != 1


def test_a_tpu_is_asked_for_until_there_is_one(tpu, tmp_path):
  (tmp_path / "creations").write_text("no capacity\n" * 3)
  done = tpu.run(*TRAIN, codes=[0])
  assert done.returncode == 0, done.stderr
  assert [call.split()[0] for call in tpu.calls] == [
    *["create"] * 4,
    "install",
    "-m",
  ]
  assert "[restart 3 of 100]" in done.stdout


def test_a_tpu_that_can_never_be_created_is_asked_for_once(tpu, tmp_path):
  mistake = "ERROR: INVALID_ARGUMENT: type v3-33\n"
  (tmp_path / "creations").write_text(mistake)
  done = tpu.run(*TRAIN)
  assert done.returncode == 1
  assert len(tpu.calls) == 1
  assert mistake in done.stderr
  assert done.stderr.count("Error: ") == 1
  # After a preemption, the same command has worked before.
  (tmp_path / "creations").write_text(f"\n{mistake}")
  done = tpu.run(*TRAIN, codes=["preempted", 0])
  assert done.returncode == 0, done.stderr
  assert tpu.calls.count("create  --spot") == 3


def test_a_program_that_already_runs_on_a_tpu_is_followed(tpu, tmp_path):
  assert tpu.run(*TRAIN[:-3], "create").returncode == 0
  assert tpu.run(*TRAIN[:-3], "setup").returncode == 0
  first = tpu.run(*TRAIN[:-3], "run", *TRAIN[-2:], codes=["slow"])
  assert first.returncode == 0, first.stderr
  while (tmp_path / "codes").read_text():  # Until the program has begun.
    time.sleep(0.02)
  second = tpu.run(*TRAIN)
  assert second.returncode == 0, second.stderr
  assert "Finished" in second.stdout
  assert (tmp_path / "host/byol_jax/exit_code").read_text() == "0\n"
  assert tpu.calls == []  # It started nothing.


def test_what_tells_a_tpu_to_stop_does_not_find_itself():
  """`pkill -f` sees the whole command of the shell that runs it."""
  told = "[p]ython -m byol_jax.main"
  done = subprocess.run(
    ["bash", "-c", f"pgrep -f '{told} --config=no.such' || echo none; true"],
    capture_output=True,
    text=True,
  )
  assert done.stdout == "none\n"


def test_one_machine_starts_again_what_was_stopped(machine):
  done = machine.run(MULTI_GPU, CONFIG, codes=[75, 75, 0], GPUS="0,1")
  assert done.returncode == 0, done.stderr
  assert machine.calls == [f"python -m byol_jax.main {CONFIG}"] * 3
  assert done.stdout.splitlines() == [
    f"[restart {n} of 10] env CUDA_VISIBLE_DEVICES=0\\,1 python -m"
    f" byol_jax.main {CONFIG}"
    for n in range(3)
  ]


@pytest.mark.parametrize("code", [1, 130, 134, 137])
def test_one_machine_leaves_with_any_other_code(machine, code):
  done = machine.run(MULTI_GPU, CONFIG, codes=[code])
  assert done.returncode == code
  assert len(machine.calls) == 1


def test_one_machine_gives_up_after_so_many_restarts(machine):
  done = machine.run(MULTI_GPU, CONFIG, codes=[75] * 9, RESTARTS="2")
  assert done.returncode == 75
  assert "after 2 restarts" in done.stderr
  assert len(machine.calls) == 3


def test_one_machine_prints_and_runs_nothing_when_dry(machine):
  done = machine.run(MULTI_GPU, "--dry-run", CONFIG)
  assert done.returncode == 0
  assert done.stdout.endswith(f" python -m byol_jax.main {CONFIG}\n")
  assert machine.calls == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_one_machine_hands_a_signal_on_and_ends(machine, tmp_path, signum):
  machine.replace(
    """#!/usr/bin/env bash
trap 'echo saved; exit 75' TERM INT
echo started
while ((SECONDS < 20)); do sleep 0.05; done
""",
    "python",
  )
  process = machine.start(MULTI_GPU, CONFIG)
  while "started" not in process.stdout.readline():
    assert process.poll() is None
  process.send_signal(signum)
  stdout, stderr = process.communicate(timeout=10)
  assert stdout == "saved\n"  # Once: it was not started again.
  assert stderr == ""
  assert process.returncode == 75


STEP = "srun --kill-on-bad-exit=0 python -m byol_jax.main"


def test_a_job_prints_and_runs_a_step_with_the_arguments(machine):
  done = machine.run(SLURM, CONFIG, "--workdir=a b", **JOB)
  assert done.returncode == 0, done.stderr
  assert machine.calls == [f"{STEP} {CONFIG} --workdir=a b"]
  assert done.stdout == (
    f"[job 7, restart 0 of 100] {STEP} {CONFIG} --workdir=a\\ b\n"
  )


def test_a_job_keeps_its_cpus_and_has_a_process_for_each_gpu(machine):
  srun, program = STEP.split(" python", 1)
  program = f"python{program}"
  machine.run(
    SLURM,
    CONFIG,
    **JOB,
    SLURM_CPUS_PER_TASK="12",
    SLURM_NTASKS="16",
    SLURM_JOB_NUM_NODES="2",
    SLURM_GPUS_ON_NODE="8",
  )
  assert machine.calls == [f"{srun} --cpus-per-task=12 {program} {CONFIG}"]


@pytest.mark.parametrize("code", [75, 134])
def test_a_stopped_job_goes_back_into_the_queue(machine, code):
  done = machine.run(
    SLURM, CONFIG, codes=[code], **JOB, SLURM_RESTART_COUNT="99"
  )
  assert machine.calls == [f"{STEP} {CONFIG}", "scontrol requeue 7"]
  assert done.stdout.startswith("[job 7, restart 99 of 100]")
  assert done.returncode == code


def test_a_job_gives_up_after_so_many_restarts(machine):
  done = machine.run(
    SLURM, CONFIG, codes=[75], **JOB, SLURM_RESTART_COUNT="3", RESTARTS="3"
  )
  assert machine.calls == [f"{STEP} {CONFIG}"]
  assert "after 3 restarts" in done.stderr
  assert done.returncode == 75


@pytest.mark.parametrize("code", [1, 130, 137, 143])
def test_a_job_leaves_with_any_other_code(machine, code):
  done = machine.run(SLURM, CONFIG, codes=[code], **JOB)
  assert done.returncode == code
  assert len(machine.calls) == 1


def test_an_array_is_of_seeds_and_only_one_of_them_is_put_back(machine):
  """The last task of an array has the array's own id as SLURM_JOB_ID."""
  machine.run(
    SLURM,
    CONFIG,
    "--workdir=runs/seeds",
    codes=[75],
    SLURM_JOB_ID="9",
    SLURM_ARRAY_JOB_ID="9",
    SLURM_ARRAY_TASK_ID="2",
  )
  assert machine.calls == [
    f"{STEP} {CONFIG} --workdir=runs/seeds --config.seed=2"
    " --workdir=runs/seeds/seed_2",
    "scontrol requeue 9_2",
  ]
