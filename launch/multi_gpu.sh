#!/usr/bin/env bash
set -euo pipefail

usage='Trains on the GPUs of this machine and goes on where it was stopped.

  launch/multi_gpu.sh [--dry-run] ARGUMENTS of byol_jax.main

One process uses all GPUs. Run it from the root of the repository, with the Python
environment activated. When byol_jax.main leaves with 75, stopped but not done,
it is started again; a signal that was sent to this script is passed on, and ends
it.

  --dry-run   print what would be run, and run nothing
  GPUS        (environment) those to use, such as 0,1; by default all
  RESTARTS    (environment) how often to start again; by default 10'

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
restarts=${RESTARTS:-10} # A choice: enough for interruptions, few for a loop.
[[ $restarts =~ ^[0-9]+$ ]] ||
  fail "RESTARTS=$restarts is not a number; give one, such as 10."

command=(python -m byol_jax.main "$@")
if [[ -n ${GPUS:-} ]]; then
  [[ $GPUS =~ ^[0-9]+(,[0-9]+)*$ ]] ||
    fail "GPUS=$GPUS are not numbers of GPUs; give some, such as GPUS=0,1."
  command=(env "CUDA_VISIBLE_DEVICES=$GPUS" "${command[@]}")
fi

# With job control Python runs in a group of its own and hears of Ctrl-C from
# here only. Without, bash would let it start deaf to Ctrl-C.
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
  while kill -0 "$!" 2>/dev/null; do # A trap cut `wait` short.
    status=0
    wait "$!" || status=$?
  done
  # 75 is EX_TEMPFAIL of sysexits.h.
  [[ $status == 75 && -z $stopped ]] || exit "$status"
  ((restarted < restarts)) ||
    fail "still not done after $restarts restarts; run it again to go on." 75
done
