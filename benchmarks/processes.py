"""Measures the speed-up by a second process, and its cost of communication.

    python -m benchmarks.processes --width=0.25 --batch_size=64 --image_size=28

Each process has one core of its own and processes --batch_size images per step.
The benchmark measures three settings in alternation, --rounds times: one
process (`alone`), two independent processes (`apart`), and two processes that
train as one run with a batch twice as large (`together`).

The difference between `together` and `apart` is communication and waiting for
each other. The difference between `apart` and `alone` is due to the machine,
whose cores share memory. The benchmark prints one line per measurement, and a
JSON line of medians at the end.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from benchmarks import update_step
from byol_jax.runtime import cpu
from byol_jax.training import build

# By setting: the number of processes, and whether they make one run.
_SETTINGS = {"alone": (1, False), "apart": (2, False), "together": (2, True)}


def main() -> None:
  """Runs the benchmark with the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--encoder", default="ResNet18")
  parser.add_argument("--stem", default="cifar")
  parser.add_argument("--width", type=float, default=0.25)
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--image_size", type=int, default=28)
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--index", type=int, help="Internal.")
  parser.add_argument("--coordinator", default="", help="Internal.")
  parser.set_defaults(microbatches=1, precision="float32", remat=False)
  options = parser.parse_args()
  if options.index is not None:
    print(_seconds_a_step(options))
    return
  seconds: dict[str, list[float]] = {name: [] for name in _SETTINGS}
  for _ in range(options.rounds):
    for name, setting in _SETTINGS.items():
      seconds[name].append(_measure(*setting))
      print(f"{name:10}{seconds[name][-1]:8.3f} s a step", flush=True)
  alone, apart, together = (statistics.median(seconds[n]) for n in _SETTINGS)
  print(
    json.dumps(
      {
        "benchmark": "processes",
        **vars(options),
        "images_per_second_alone": round(options.batch_size / alone, 1),
        "images_per_second_together": round(
          2 * options.batch_size / together, 1
        ),
        "times_as_fast": round(2 * alone / together, 2),
        "share_of_communication": round(1 - apart / together, 3),
      }
    )
  )


def _measure(count: int, is_one_run: bool) -> float:
  """Returns the seconds per step of the slowest of `count` processes."""
  arguments = sys.argv[1:]
  if is_one_run:
    with socket.create_server(("127.0.0.1", 0)) as free:
      arguments.append(f"--coordinator=127.0.0.1:{free.getsockname()[1]}")
  started = [
    subprocess.Popen(
      [
        sys.executable,
        *("-m", "benchmarks.processes"),
        *arguments,
        f"--index={index}",
      ],
      stdout=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]
  return max(
    float(process.communicate()[0].splitlines()[-1]) for process in started
  )


def _seconds_a_step(options: argparse.Namespace) -> float:
  """Returns the median seconds per step of this process, on one core."""
  cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {cores[options.index % len(cores)]})
  cpu.choose_fast_convolutions()

  import jax

  from byol_jax.runtime import devices, processes
  from byol_jax.training import plan

  if options.coordinator:
    processes.initialize(options.coordinator, 2, options.index)
  config = update_step._config(options)
  config.train.batch_size *= jax.process_count()
  planned = plan.make_plan(config, num_examples=10_000)
  learner = build.build_learner(config, planned, num_classes=10)
  batch = update_step._batch(options.batch_size, options.image_size)
  state = devices.replicate(learner.init(jax.random.key(0), batch))
  update = devices.pmap_update(learner.update)
  (on_devices,) = devices.prefetch([batch])
  seconds = []
  for _ in range(options.steps + 2):  # Step 1 compiles, step 2 settles.
    began = time.perf_counter()
    state, _ = jax.block_until_ready(update(state, on_devices))
    seconds.append(time.perf_counter() - began)
  return statistics.median(seconds[2:])


if __name__ == "__main__":
  cpu.restart_with_huge_pages()
  main()
