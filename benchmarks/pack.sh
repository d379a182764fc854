#!/usr/bin/env bash
# Packs what a machine lacks that has JAX and Python 3.12, but neither TensorFlow nor
# a network:
#
#   benchmarks/pack.sh FOLDER
#
# FOLDER then holds the wheels that training, evaluating and the benchmarks need
# there. Copy it into a copy of the project on that machine, and run
# benchmarks/unpacked.sh.
set -euo pipefail
folder=${1:?Usage: benchmarks/pack.sh FOLDER}
mkdir -p "$folder"
# Versions as in requirements.txt; what only these packages need is not pinned there.
pinned() { grep -E "^($1)==" "$(dirname "$0")/../requirements.txt"; }
core="dm-haiku|jmp|optax|chex|ml-collections|absl-py|safetensors|orbax-checkpoint"
core="$core|tensorboardX|tqdm|matplotlib|pillow|importlib_resources"
python3 -m pip download -q --dest "$folder" --no-deps --only-binary=:all: \
  --python-version 3.12 --platform manylinux_2_28_x86_64 \
  --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --platform any \
  $(pinned "$core") \
  tabulate toolz PyYAML typing-extensions \
  aiofiles etils fsspec humanize msgpack prometheus-client protobuf psutil \
  simplejson tensorstore uvloop zipp \
  contourpy cycler fonttools kiwisolver packaging pyparsing python-dateutil six
du -sh "$folder"
