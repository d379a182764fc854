#!/usr/bin/env bash
set -euo pipefail

usage='Trains on all hosts of a Cloud TPU.

  launch/tpu_pod.sh [OPTIONS] COMMAND [ARGUMENTS]

  train ARGUMENTS  create the TPU, set it up and start byol_jax.main with ARGUMENTS
                   on all hosts; again whenever the TPU or the program is lost,
                   until the run is finished; Ctrl-C stops only this script
  create           create the TPU
  setup            copy this repository to all hosts and install it
  run ARGUMENTS    start byol_jax.main with ARGUMENTS on all hosts, and return
  log              follow the output of all hosts; Ctrl-C stops only the output
  stop             save and end the run; the same "run" command resumes it
  fetch            copy runs/ from the bucket to here
  delete           delete the TPU and everything on its disks

  --name=NAME        or TPU_NAME: the name of the TPU, which you choose
  --zone=ZONE        or ZONE: a zone of Google Cloud, such as europe-west4-a
  --type=TYPE        or ACCELERATOR_TYPE: for create, such as v3-32
  --version=VERSION  or RUNTIME_VERSION: for create, such as tpu-ubuntu2204-base
  --flags=FLAGS      or CREATE_FLAGS: flags of gcloud for create, such as --spot
  --bucket=BUCKET    or BUCKET: such as gs://mine; a run without --workdir writes to
                     BUCKET/runs/NAME, where NAME is that of its experiment
  RESTARTS           (environment) the largest number of restarts; by default 100
  WAIT               (environment) seconds between them, and between looks at the
                     run; by default 120
  --dry-run          print the commands, and run nothing
  --help             print this text'

fail() { # fail MESSAGE [CODE]
  echo "Error: $1" >&2
  exit "${2:-1}"
}

# need VALUE OPTION VARIABLE EXAMPLE: fails if VALUE is empty.
need() {
  [[ -n $1 ]] ||
    fail "$2 is missing; give $2=$4 or set $3."
}

run() {
  printf '%q ' "$@"
  echo
  [[ -n $dry_run ]] || "$@"
}

on_hosts() { # on_hosts COMMAND: runs COMMAND on all hosts at once.
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="$1"
}

create() {
  local flags
  read -ra flags <<<"$flags_text"
  run gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
    --accelerator-type="$type" --version="$version" ${flags[@]+"${flags[@]}"}
}

setup() {
  local archive=/tmp/byol_jax-$name.tar.gz
  run tar --create --gzip --file="$archive" --exclude-vcs --exclude=./.venv \
    --exclude=./runs --directory="$(dirname "$0")/.." . || return
  run gcloud compute tpus tpu-vm scp "$archive" "$name:byol_jax.tar.gz" \
    --zone="$zone" --worker=all || return
  # The Python on the images of TPU hosts is too old; uv installs a newer one.
  on_hosts "mkdir -p byol_jax && cd byol_jax && tar -xzf ../byol_jax.tar.gz \
&& python3 -m pip install --quiet --user uv \
&& python3 -m uv venv --quiet --clear --python=3.11 .venv \
&& python3 -m uv pip install --quiet --python=.venv/bin/python \
-r requirements.txt -e '.[tpu,gcs]'"
}

start() { # start ARGUMENTS: starts the program, which survives the connection.
  # A shell that ignored TERM would make the program ignore it, too.
  on_hosts "cd byol_jax && rm -f exit_code && { (trap '' HUP; trap : TERM; \
.venv/bin/python -m byol_jax.main$(printf ' %q' "$@"); echo \$? >exit_code) \
>>run.log 2>&1 </dev/null & echo \$! >pid; }"
}

programs() { # Prints a line of each host.
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="cd byol_jax 2>/dev/null; \
if pgrep -F pid -f byol_jax.main >/dev/null 2>&1; then echo program running; \
elif [ -f exit_code ]; then echo program ended \$(cat exit_code); \
else echo program lost; fi"
}

state() { # Prints the state of the TPU, or nothing.
  gcloud compute tpus tpu-vm describe "$name" --zone="$zone" \
    --format='value(state)' 2>/dev/null || true
}

create_if_possible() { # Returns 75 to try again, 2 for a mistake.
  local said # What gcloud says of an error, which is also shown.
  { said=$(create 2>&1 >&3 | tee >(cat >&2)); } 3>&1 && return
  # At the first try the user is there to correct a mistake. After that, anything but
  # the user's command may be the reason.
  ((restarted)) || grep -qi capacity <<<"$said" || return 2
  return 75
}

follow() { # Returns 0 once the run is finished, 1 for a mistake, 75 to restart.
  local failures=0 said
  while sleep "$wait"; do
    [[ $(state) == READY ]] || return 75
    if ! said=$(programs 2>/dev/null); then
      # Our choice: ten looks are more than a fault of the network should last.
      ((++failures < 10)) || return 75
    elif [[ $said != *"program running"* ]]; then
      ! grep -Eq 'program ended 1\b' <<<"$said" || return 1
      ! grep -Eq 'program (lost|ended [^0])' <<<"$said" || return 75
      return 0
    else
      failures=0
    fi
  done
}

train() { # train ARGUMENTS: one try; returns as follow and create_if_possible do.
  case $(state) in
    READY) ;;
    '') create_if_possible || return ;;
    PREEMPTED | TERMINATED | STOPPED)
      run gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet ||
        return 75
      create_if_possible || return
      ;;
    *) return 75 ;; # It is being created, repaired or deleted.
  esac
  local said
  said=$(programs) || return 75
  if [[ $said != *"program running"* ]]; then
    setup || return 75
    start "$@" || return 75
  fi
  follow
}

name=${TPU_NAME:-}
zone=${ZONE:-}
type=${ACCELERATOR_TYPE:-}
version=${RUNTIME_VERSION:-}
flags_text=${CREATE_FLAGS:-}
bucket=${BUCKET:-}
dry_run=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --flags=*) flags_text=${1#*=} ;;
    --bucket=*) bucket=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --help)
      echo "$usage"
      exit
      ;;
    *) fail "$1 is not an option; see $0 --help." ;;
  esac
  shift
done

commands='train, create, setup, run, log, stop, fetch or delete'
[[ $# -gt 0 ]] || fail "a command is missing; give $commands."
action=$1
shift
case $action in
  train | run)
    [[ " $*" == *" --config"[=\ ]* ]] ||
      fail "--config is missing; try $action --config=experiments/imagenet.py:300."
    if [[ " $*" != *" --workdir"[=\ ]* ]]; then
      need "$bucket" --bucket BUCKET gs://mine
      # As byol_jax.main names a workdir: imagenet-300 of imagenet.py:300.
      experiment=$(sed -E 's/.* --config[= ]([^ ]*).*/\1/' <<<" $*")
      experiment=${experiment##*/}
      experiment=${experiment/.py:/-}
      set -- "$@" "--workdir=${bucket%/}/runs/${experiment%.py}"
    fi
    ;;
  create | setup | log | stop | fetch | delete)
    [[ $# == 0 ]] || fail "$action takes no arguments; remove $*."
    ;;
  *) fail "$action is not a command; give $commands." ;;
esac
if [[ $action == create || $action == train ]]; then
  need "$type" --type ACCELERATOR_TYPE v3-32
  need "$version" --version RUNTIME_VERSION tpu-ubuntu2204-base
fi
[[ $action != fetch ]] || need "$bucket" --bucket BUCKET gs://mine
[[ -z $bucket || $bucket == gs://?* ]] ||
  fail "--bucket=$bucket is not a bucket; give one, such as --bucket=gs://mine."
restarts=${RESTARTS:-100} # Our choices: hours without a free TPU, but not for ever;
wait=${WAIT:-120}         # a small part of the minutes that a restart takes.
[[ $restarts =~ ^[0-9]+$ ]] ||
  fail "RESTARTS=$restarts is not a number; give a number, such as 100."
[[ $wait =~ ^[0-9.]+$ ]] ||
  fail "WAIT=$wait is not a number of seconds; give one, such as 120."
need "$name" --name TPU_NAME byol
need "$zone" --zone ZONE europe-west4-a
[[ -n $dry_run ]] || command -v gcloud >/dev/null ||
  fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install."

case $action in
  train)
    if [[ -n $dry_run ]]; then
      create
      setup
      start "$@"
      exit
    fi
    for ((restarted = 0; ; restarted++)); do
      echo "[restart $restarted of $restarts]"
      code=0
      train "$@" || code=$?
      case $code in
        0)
          echo "Finished; $0 delete deletes the TPU, which costs money until then."
          exit
          ;;
        1) fail "the program ended with a mistake; $0 log shows it." ;;
        2) fail "the TPU cannot be created; correct what gcloud says above." ;;
      esac
      ((restarted < restarts)) ||
        fail "the run is not finished after $restarts restarts; the same command resumes it." "$code"
      sleep "$wait"
    done
    ;;
  create) create ;;
  setup) setup ;;
  run) start "$@" ;;
  log)
    on_hosts "tail -n 20 -F byol_jax/run.log"
    ;;
  stop)
    # The brackets keep the pattern from matching the shell that runs pkill.
    on_hosts "pkill -TERM -f '[p]ython -m byol_jax.main'"
    ;;
  fetch)
    run gcloud storage cp --recursive "${bucket%/}/runs" .
    ;;
  delete)
    run gcloud compute tpus tpu-vm delete "$name" --zone="$zone"
    ;;
esac
