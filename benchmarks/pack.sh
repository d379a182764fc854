#!/usr/bin/env bash
# Packs what a machine lacks that has JAX and Python 3.12, but neither TensorFlow nor
# a network:
#
#   benchmarks/pack.sh FOLDER
#
# FOLDER then holds wheels. Copy it into a copy of the project there, and run
# benchmarks/unpacked.sh.
set -euo pipefail
folder=${1:?Usage: benchmarks/pack.sh FOLDER}
mkdir -p "$folder"
# Versions as in requirements.txt; what only they need is not pinned there.
pinned() { grep -E "^($1)==" "$(dirname "$0")/../requirements.txt"; }
python3 -m pip download -q --dest "$folder" --no-deps --only-binary=:all: \
  --python-version 3.12 --platform manylinux_2_28_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
  $(pinned "dm-haiku|optax|chex|ml-collections|absl-py|safetensors") \
  jmp tabulate toolz PyYAML typing-extensions
du -sh "$folder"
