#!/usr/bin/env bash
set -euo pipefail

usage='Trains on all hosts of a Cloud TPU.

  launch/tpu_pod.sh [OPTIONS] COMMAND [ARGUMENTS]

  create [FLAGS]   create the TPU; FLAGS are flags of gcloud, such as --spot
  setup            copy this repository to all hosts and install it
  run ARGUMENTS    start byol_jax.main with ARGUMENTS on all hosts, and return
  log              follow the output of all hosts; Ctrl-C stops only the output
  stop             save and end the run; the same "run" command resumes it
  fetch            copy runs/ from the first host, which writes it, to here
  delete           delete the TPU and everything on its disks

  --name=NAME        or TPU_NAME: the name of the TPU, which you choose
  --zone=ZONE        or ZONE: a zone of Google Cloud, such as europe-west4-a
  --type=TYPE        or ACCELERATOR_TYPE: for create, such as v3-32
  --version=VERSION  or RUNTIME_VERSION: for create, such as tpu-ubuntu2204-base
  --dry-run          print the commands, and run nothing
  --help             print this text'

fail() {
  echo "Error: $1" >&2
  exit 1
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

name=${TPU_NAME:-}
zone=${ZONE:-}
type=${ACCELERATOR_TYPE:-}
version=${RUNTIME_VERSION:-}
dry_run=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --help)
      echo "$usage"
      exit
      ;;
    *) fail "$1 is not an option; see $0 --help." ;;
  esac
  shift
done

commands='create, setup, run, log, stop, fetch or delete'
[[ $# -gt 0 ]] || fail "a command is missing; give $commands."
action=$1
shift
case $action in
  create)
    need "$type" --type ACCELERATOR_TYPE v3-32
    need "$version" --version RUNTIME_VERSION tpu-ubuntu2204-base
    ;;
  run)
    [[ " $*" == *" --config"[=\ ]* ]] ||
      fail "--config is missing; try run --config=experiments/imagenet.py:300."
    ;;
  setup | log | stop | fetch | delete)
    [[ $# == 0 ]] || fail "$action takes no arguments; remove $*."
    ;;
  *) fail "$action is not a command; give $commands." ;;
esac
need "$name" --name TPU_NAME byol
need "$zone" --zone ZONE europe-west4-a
[[ -n $dry_run ]] || command -v gcloud >/dev/null ||
  fail "gcloud is not installed; see https://cloud.google.com/sdk/docs/install."

case $action in
  create)
    run gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
      --accelerator-type="$type" --version="$version" "$@"
    ;;
  setup)
    archive=/tmp/byol_jax-$name.tar.gz
    run tar --create --gzip --file="$archive" --exclude-vcs --exclude=./.venv \
      --exclude=./runs --directory="$(dirname "$0")/.." .
    run gcloud compute tpus tpu-vm scp "$archive" "$name:byol_jax.tar.gz" \
      --zone="$zone" --worker=all
    # The Python on the images of TPU hosts is too old; uv installs a newer one.
    on_hosts "mkdir -p byol_jax && cd byol_jax && tar -xzf ../byol_jax.tar.gz \
&& python3 -m pip install --quiet --user uv \
&& python3 -m uv venv --quiet --clear --python=3.11 .venv \
&& python3 -m uv pip install --quiet --python=.venv/bin/python \
-r requirements.txt -e '.[tpu]'"
    ;;
  run)
    # The program runs in the background, so it survives a lost connection.
    on_hosts "cd byol_jax && { nohup .venv/bin/python -m byol_jax.main$(printf ' %q' "$@") \
>>run.log 2>&1 </dev/null & }"
    ;;
  log)
    on_hosts "tail -n 20 -F byol_jax/run.log"
    ;;
  stop)
    # The brackets keep the pattern from matching the shell that runs pkill.
    on_hosts "pkill -TERM -f '[p]ython -m byol_jax.main'"
    ;;
  fetch)
    run gcloud compute tpus tpu-vm scp --recurse "$name:byol_jax/runs" . \
      --zone="$zone" --worker=0
    ;;
  delete)
    run gcloud compute tpus tpu-vm delete "$name" --zone="$zone"
    ;;
esac
