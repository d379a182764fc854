"""Replays the reference's updates on the device at hand, in several precisions.

    python -m benchmarks.golden_step

Prints a JSON line: for each precision of matrix products, the largest relative
error of an array of the momentum after one, two and six updates of eight images.
Chance decides the later ones in float32: a ReLU of so few images may fall on the
other side (docs/architecture.md).
"""

import json

import jax
import numpy as np
import optax

from byol_jax.runtime import cpu
from tests import golden_updates

_PRECISIONS = ("highest", "tensorfloat32", "bfloat16")
_STEPS = (1, 2, 6)
# float32 agrees to 1e-5 after an update on CPUs. Our choice: a hundred times as
# much, since accelerators add in another order, and an array may nearly vanish.
_TOLERANCE = 1e-3


def main() -> None:
  """Replays the updates in each precision."""
  cpu.choose_fast_convolutions()
  found = {name: _errors(name) for name in _PRECISIONS}
  print(
    json.dumps(
      {
        "benchmark": "golden_step",
        "device": jax.devices()[0].device_kind,
        "errors_by_step": found,
        "passed": found["highest"][_STEPS[0]] < _TOLERANCE,
      }
    )
  )


def _errors(precision: str) -> dict[int, float]:
  """Returns the largest relative error by number of updates."""
  update = jax.jit(golden_updates.make_learner().update)
  state = golden_updates.start_state()
  errors = {}
  with jax.default_matmul_precision(precision):
    for step in range(max(_STEPS)):
      state, _ = update(state, golden_updates.golden_batch(step))
      if step + 1 in _STEPS:
        errors[step + 1] = _largest(state, step + 1)
  return errors


def _largest(state, step: int) -> float:
  """Returns the largest relative L2 distance of an array from the reference's."""
  momentum = optax.tree.get(state.opt_state, "trace")
  expected = golden_updates.ONE.tree(f"after{step}/mu")
  return max(
    float(np.linalg.norm(momentum[module][name] - array) / norm)
    for module, arrays in expected.items()
    for name, array in arrays.items()
    # Biases before a batch norm hold rounding errors only.
    if (norm := np.linalg.norm(array)) > 1e-5
  )


if __name__ == "__main__":
  main()
