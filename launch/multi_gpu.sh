#!/usr/bin/env bash
set -euo pipefail

usage='Trains on the GPUs of this machine and resumes after an interruption.

  launch/multi_gpu.sh [--dry-run] ARGUMENTS of byol_jax.main

One process uses all GPUs. Run this script from the root of the repository, with
the Python environment activated. The script restarts byol_jax.main when it
exits with 75, which means that the run stopped before its end. The script
forwards a signal to byol_jax.main and then does not restart it.

  --dry-run   print the command, and run nothing
  GPUS        (environment) the GPUs to use, such as 0,1; by default all
  RESTARTS    (environment) the largest number of restarts; by default 10'

fail() { # fail MESSAGE [CODE]
  echo "Error: $1" >&2
  exit "${2:-1}"
}

dry_run=
case ${1:-} in
  --help)
    echo "$usage"
    exit
    ;;
  --dry-run)
    dry_run=yes
    shift
    ;;
esac

[[ " $*" == *" --config"[=\ ]* ]] ||
  fail "--config is missing; try $0 --config=experiments/cifar10.py."
restarts=${RESTARTS:-10} # Our choice: many for interruptions, few for a loop.
[[ $restarts =~ ^[0-9]+$ ]] ||
  fail "RESTARTS=$restarts is not a number; give a number, such as 10."

command=(python -m byol_jax.main "$@")
if [[ -n ${GPUS:-} ]]; then
  [[ $GPUS =~ ^[0-9]+(,[0-9]+)*$ ]] ||
    fail "GPUS=$GPUS is not a list of GPU numbers; give one, such as GPUS=0,1."
  command=(env "CUDA_VISIBLE_DEVICES=$GPUS" "${command[@]}")
fi

# With job control, Python runs in a process group of its own and receives
# Ctrl-C from this script only. Without job control, bash would start Python
# with SIGINT ignored.
set -m
stopped=
pass_on() {
  stopped=yes
  kill "-$1" "$(jobs -p)"
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

for ((restarted = 0; ; restarted++)); do
  printf '[restart %s of %s]' "$restarted" "$restarts"
  printf ' %q' "${command[@]}"
  echo
  [[ -z $dry_run ]] || exit 0
  "${command[@]}" &
  status=0
  wait "$!" || status=$?
  while kill -0 "$!" 2>/dev/null; do # A trap interrupted `wait`.
    status=0
    wait "$!" || status=$?
  done
  # 75 is EX_TEMPFAIL of sysexits.h.
  [[ $status == 75 && -z $stopped ]] || exit "$status"
  ((restarted < restarts)) ||
    fail "not finished after $restarts restarts; run it again to resume." 75
done
