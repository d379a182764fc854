#!/usr/bin/env bash
# Runs a module of the project with the wheels of benchmarks/pack.sh beside the JAX of
# the machine:
#
#   benchmarks/unpacked.sh FOLDER benchmarks.accelerator --out=OUT
#   benchmarks/unpacked.sh FOLDER byol_jax.main --config=... --workdir=...
set -euo pipefail
folder=$(realpath "${1:?Usage: benchmarks/unpacked.sh FOLDER MODULE [FLAGS]}")
module=${2:?Usage: benchmarks/unpacked.sh FOLDER MODULE [FLAGS]}
shift 2
packages=$folder/installed
if [ ! -d "$packages" ]; then
  python3 -m pip install -q --no-index --no-deps --target "$packages" "$folder"/*.whl
fi
PYTHONPATH="$PWD:$packages" python3 -m "$module" "$@"
