"""Measures the time of an update and of its parts, and what bounds it.

    python -m benchmarks.update_step --encoder=ResNet18 --stem=cifar \
      --width=0.25 --batch_size=128 --image_size=28

The benchmark prints the fraction of time of each part, and a JSON line at the
end. Two views count as one image. Rates are for the median step. The floor is
the rate of a step whose matrix products and convolutions all run as fast as a
large matrix product does on this machine.

--microbatches, --precision and --remat set the keys of the configuration.
--plain measures the same step with XLA's own convolutions and settings.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

from byol_jax.runtime import cpu
from byol_jax.training import build

_MATRIX = 2048  # Side of the matrices whose product gives the floor.


def main() -> None:
  """Runs the benchmark with the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--encoder", default="ResNet18")
  parser.add_argument("--stem", default="cifar")
  parser.add_argument("--width", type=float, default=0.25)
  parser.add_argument("--batch_size", type=int, default=128)
  parser.add_argument("--image_size", type=int, default=28)
  parser.add_argument("--microbatches", type=int, default=1)
  parser.add_argument("--precision", default="float32")
  parser.add_argument("--remat", action="store_true")
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--plain", action="store_true")
  options = parser.parse_args()
  if not options.plain:
    cpu.choose_fast_convolutions()

  # These imports are late, because the command line decides how they start.
  import jax

  from benchmarks import measuring
  from byol_jax.models import cpu_convolution
  from byol_jax.runtime import devices
  from byol_jax.training import health, plan

  if options.plain:
    cpu_convolution.conv = cpu_convolution.lax_conv  # type: ignore[assignment]
  config = _config(options)
  network = build.build_network(config, num_classes=10)
  planned = plan.make_plan(config, num_examples=10_000)
  learner = build.build_learner(config, planned, num_classes=10)
  batch = _batch(options.batch_size, options.image_size)
  started = time.perf_counter()
  state = jax.block_until_ready(learner.init(jax.random.key(0), batch))
  init_seconds = time.perf_counter() - started
  flops = 4 * measuring.forward_flops(network, state, batch["view1"])

  state = devices.replicate(state)
  update = devices.pmap_update(learner.update)
  (on_devices,) = devices.prefetch([batch])
  started = time.perf_counter()
  state, _ = jax.block_until_ready(update(state, on_devices))
  first_seconds = time.perf_counter() - started

  observed_update = devices.pmap_update(
    build.build_observed_update(config, learner),
    out_axes=(None, None, health.EVIDENCE_AXES),
  )
  step, observed_step = _steps(state, on_devices, update, observed_update)

  # The parts and the step are timed in alternation, so that no part absorbs a
  # drift of the machine's speed. With micro-batches the parts are not timed,
  # because they use the whole batch and would raise the peak memory, which
  # accumulation lowers.
  passes = []
  if options.microbatches == 1:
    passes = _passes(network, state, jax.device_put(batch))
    passes.append(observed_step)
  *of_parts, seconds = measuring.seconds(options.steps, *passes, step)
  whole = statistics.median(seconds)
  if of_parts:
    once, both, observed = map(statistics.median, of_parts)
    _tell_parts(once, both, observed, whole)
  rate = _matmul_rate()
  print(
    json.dumps(
      {
        "benchmark": "update_step",
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        **vars(options),
        "images_per_second": round(options.batch_size / whole, 1),
        "best_images_per_second": round(options.batch_size / min(seconds), 1),
        "gflops_per_second": round(flops / whole / 1e9, 1),
        "matmul_gflops_per_second": round(rate / 1e9, 1),
        "floor_images_per_second": round(options.batch_size * rate / flops, 1),
        "init_seconds": round(init_seconds, 1),
        "first_step_seconds": round(first_seconds, 1),
        "peak_memory_mb": round(
          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        ),
      }
    )
  )


def _steps(state, batch, *updates) -> list[Callable[[], Any]]:
  """Returns one program for each update, all of which go on from the last state."""

  def program(update):
    def step():
      nonlocal state
      state, *told = update(state, batch)
      return state, told

    return step

  return [program(update) for update in updates]


def _tell_parts(
  once: float, both: float, observed: float, whole: float
) -> None:
  """Prints the time of each part.

  Args:
    once: seconds of a forward pass of one network.
    both: seconds of the gradient, with the forward passes of both networks.
    observed: seconds of a step that also tells what diagnoses need, as with
      `log.diagnose`.
    whole: seconds of a step.
  """
  parts = {
    "forward, online": once,
    "forward, target": once,
    "backward": both - 2 * once,
    "optimizer, EMA, metrics": whole - both,
    "evidence, on top": observed - whole,
  }
  for name, part in parts.items():
    print(f"{name:26}{part * 1e3:9.1f} ms {part / whole:6.1%}")


def _config(options):
  """Returns the small configuration with the options of the command line."""
  from byol_jax import config as config_lib

  config = config_lib.small_grey_config()
  config.data.mean = config.data.std = (0.5, 0.5, 0.5)
  config.model.encoder.name = options.encoder
  config.model.encoder.stem = options.stem
  config.model.encoder.width = options.width
  config.model.encoder.pooling = "mean"
  config.train.batch_size = options.batch_size
  config.train.microbatches = options.microbatches
  config.train.precision = options.precision
  config.train.remat = options.remat
  return config


def _batch(size: int, side: int) -> dict[str, Any]:
  import numpy as np

  random = np.random.RandomState(0)
  shape = (size, side, side, 3)
  return {
    "view1": random.rand(*shape).astype(np.float32),
    "view2": random.rand(*shape).astype(np.float32),
    "label": random.randint(0, 10, size).astype(np.int32),
  }


def _passes(network, state, batch) -> list[Callable[[], Any]]:
  """Returns two programs: a forward pass of one network, and the gradient."""
  import jax
  import jax.numpy as jnp

  from byol_jax.learning import learner

  @jax.jit
  def forward(params, bn_state, batch):
    views = jnp.stack([batch["view1"], batch["view2"]])
    return network.apply(params, bn_state, views, is_training=True)

  @jax.jit
  def gradient(params, state, batch):
    return jax.grad(
      lambda p: learner.loss_fn(network, p, state, batch, jnp.ones(())),
      has_aux=True,
    )(params)

  state = jax.tree.map(jnp.copy, state)  # The update donates its own.
  return [
    lambda: forward(state.online_params, state.online_state, batch),
    lambda: gradient(state.online_params, state, batch),
  ]


def _matmul_rate() -> float:
  """Returns the operations per second of a large matrix product."""
  import jax
  import jax.numpy as jnp

  from benchmarks import measuring

  matrix = jnp.ones((_MATRIX, _MATRIX))
  multiply = jax.jit(jnp.matmul)
  (seconds,) = measuring.seconds(10, lambda: multiply(matrix, matrix))
  return 2 * _MATRIX**3 / statistics.median(seconds)


if __name__ == "__main__":
  cpu.restart_with_huge_pages()
  main()
