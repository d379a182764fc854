#!/usr/bin/env bash
# Installs the wheels of benchmarks/pack.sh beside the JAX of the machine, and runs
# benchmarks.accelerator:
#
#   benchmarks/unpacked.sh FOLDER --out=OUT
set -euo pipefail
folder=${1:?Usage: benchmarks/unpacked.sh FOLDER --out=OUT}
shift
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
python3 -m pip install -q --no-index --no-deps --target "$packages" "$folder"/*.whl
PYTHONPATH="$PWD:$packages" python3 -m benchmarks.accelerator "$@"
