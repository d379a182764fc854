"""Adds up the time of a step's operations by the part of the update they are of.

JAX's profiler writes each operation that a device runs with the name of its
instruction, and the compiled program says which code an instruction is from. GPUs run
many operations as one graph, whose instruction is the whole graph; each of them has the
name of its own instruction as that of its kernel, with underscores.
"""

import collections
import gzip
import json
import pathlib
import re

# The first pattern that matches an operation's source decides its part. Haiku and
# the learner name the scopes.
_PARTS = {
  "draw and augment": r"draw_batch|augment",
  "optimizer": r"optimizer",
  "target network's average": r"target_average",
  "batch norm": r"batchnorm|batch_norm",
  "convolutions": r"conv_general_dilated|conv\d?/|_conv/|custom-call.*conv",
  "heads": r"projector|predictor|classifier|dot_general",
}
_OTHER = "activations, pooling and other"
_INSTRUCTION = re.compile(
  r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?(\w[\w\-]*)\(", re.M
)


def parts(folder: str, program: str, steps: int) -> dict[str, float]:
  """Returns the milliseconds of a step by part, the largest first.

  Args:
    folder: that `jax.profiler.trace` has written to.
    program: the compiled update as text.
    steps: that were traced.
  """
  sources = {_kernel(n): source for n, source in _sources(program).items()}
  total: dict[str, float] = collections.defaultdict(float)
  for event in _events(pathlib.Path(folder)):
    operation = event.get("args", {}).get("hlo_op", "")
    names = event.get("name", ""), operation
    source = next((x for n in names if (x := sources.get(_kernel(n)))), None)
    if operation and source:
      total[_part(source)] += event.get("dur", 0) / 1e3 / steps
  ordered = sorted(total.items(), key=lambda item: -item[1])
  return {name: round(value, 2) for name, value in ordered}


def _kernel(instruction: str) -> str:
  return re.sub(r"[.-]", "_", instruction)


def _events(folder: pathlib.Path) -> list[dict]:
  """Returns the events of the newest trace below a folder."""
  files = sorted(folder.rglob("*.trace.json.gz"))
  if not files:
    return []
  with gzip.open(files[-1]) as file:
    return json.load(file)["traceEvents"]


def _sources(program: str) -> dict[str, str]:
  """Returns the source of each instruction, from its line of the program."""
  found = {}
  for line in program.splitlines():
    match = _INSTRUCTION.match(line)
    if match:
      name = re.search(r'op_name="([^"]*)"', line)
      target = re.search(r'custom_call_target="([^"]*)"', line)
      found[match[1]] = " ".join(
        [name[1] if name else "", match[2], target[1] if target else ""]
      )
  return found


def _part(source: str) -> str:
  return next(
    (part for part, pattern in _PARTS.items() if re.search(pattern, source)),
    _OTHER,
  )
