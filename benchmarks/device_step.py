"""Times the update of one configuration on the device at hand, and its parts.

    python -m benchmarks.device_step --encoder=ResNet50 --batch_size=256

Prints a JSON line. Two views count as one image. --input says what the update is
given: finished views, crops whose colours it changes (augment.placement=device),
or all images (data.placement=device). --set changes any key of the configuration,
as in --set=model.batch_norm.precision=bfloat16. --profile adds the parts of a step.
"""

import argparse
import json
import statistics
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measuring, step_profile
from byol_jax import config as config_lib
from byol_jax.augment import spec
from byol_jax.config import convert, schema
from byol_jax.runtime import cpu, devices, tables
from byol_jax.training import build, plan

_CLASSES, _IMAGES = 1000, 4096
# Operations per second of one device, by the start of its name and by precision.
# NVIDIA's data sheets, dense; GPUs multiply float32 as TF32 by default. Google's
# pages on TPUs; TPUs multiply float32 as bfloat16 by default.
_PEAKS = {
  "NVIDIA H100": {"bfloat16": 989.4e12, "float32": 494.7e12},
  "NVIDIA H200": {"bfloat16": 989.4e12, "float32": 494.7e12},
  "NVIDIA A100": {"bfloat16": 312e12, "float32": 156e12},
  "TPU v3": {"bfloat16": 61.5e12, "float32": 61.5e12},
  "TPU v4": {"bfloat16": 275e12, "float32": 275e12},
  "TPU v5 lite": {"bfloat16": 197e12, "float32": 197e12},
  "TPU v5p": {"bfloat16": 459e12, "float32": 459e12},
  "TPU v6 lite": {"bfloat16": 918e12, "float32": 918e12},
}


def main() -> None:
  """Measures what the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--encoder", default="ResNet50")
  parser.add_argument("--stem", default="imagenet")
  parser.add_argument("--image_size", type=int, default=224)
  parser.add_argument("--batch_size", type=int, default=256)
  parser.add_argument("--precision", default="bfloat16")
  parser.add_argument("--input", default="views", choices=_INPUTS)
  parser.add_argument("--set", action="append", default=[])
  parser.add_argument("--steps", type=int, default=20)
  parser.add_argument("--profile", action="store_true")
  options = parser.parse_args()
  cpu.choose_fast_convolutions()
  print(json.dumps({"benchmark": "device_step"} | _measure(options)))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
  """Returns the options and the figures by name."""
  config = _config(options)
  planned = plan.make_plan(config, _IMAGES)
  learner = build.build_learner(config, planned, _CLASSES)
  view = np.zeros((1, options.image_size, options.image_size, 3), np.float32)
  state = learner.init(jax.random.key(0), {"view1": view, "view2": view})
  flops = 4 * measuring.forward_flops(
    build.build_network(config, _CLASSES),
    state,
    jax.ShapeDtypeStruct((options.batch_size, *view.shape[1:]), jnp.float32),
  )
  state = devices.replicate(state)
  update = devices.pmap_update(learner.update)
  batch = _INPUTS[options.input](config)
  started = time.perf_counter()
  state, metrics = jax.block_until_ready(update(state, batch))
  first_seconds = time.perf_counter() - started
  assert np.isfinite(metrics["loss"])

  def run(steps: int) -> float:
    """Returns the seconds of a step, of several without a wait between them."""
    nonlocal state
    started = time.perf_counter()
    for _ in range(steps):
      state, metrics = update(state, batch)
    jax.block_until_ready(metrics)
    return (time.perf_counter() - started) / steps

  run(2)
  seconds = statistics.median(run(options.steps) for _ in range(3))
  kind = jax.devices()[0].device_kind
  peak = _peak(kind, options.precision)
  stats = jax.local_devices()[0].memory_stats() or {}
  figures = {
    "device": kind,
    "devices": jax.device_count(),
    **vars(options),
    "images_per_second": round(options.batch_size / seconds, 1),
    "step_ms": round(seconds * 1e3, 2),
    "tflops_per_second": round(flops / seconds / 1e12, 2),
    "share_of_peak": peak and round(flops / seconds / peak, 3),
    "peak_memory_gb": round(stats.get("peak_bytes_in_use", 0) / 1e9, 2),
    "first_step_seconds": round(first_seconds, 1),
  }
  if options.profile:
    program = update.lower(state, batch).compile().as_text()
    with tempfile.TemporaryDirectory() as folder:
      with jax.profiler.trace(folder):
        run(3)
      figures["parts_ms"] = step_profile.parts(folder, program, steps=3)
  return figures


def _peak(kind: str, precision: str) -> float | None:
  """Returns the peak of all devices; None for an unknown kind."""
  for name, peaks in _PEAKS.items():
    if kind.startswith(name):
      return peaks[precision] * jax.device_count()
  return None


def _config(options: argparse.Namespace) -> schema.Config:
  """Returns the paper's configuration with the options of the command line."""
  config = convert.typed(config_lib.default_config())
  changes: dict[str, Any] = {
    "model.encoder.name": options.encoder,
    "model.encoder.stem": options.stem,
    "data.image_size": options.image_size,
    "data.placement": "device" if options.input == "images" else "host",
    "augment.placement": "device" if options.input == "crops" else "host",
    "train.batch_size": options.batch_size,
    "train.precision": options.precision,
  }
  for setting in options.set:
    key, _, text = setting.partition("=")
    kind = type(convert.value_at(config, key))
    changes[key] = text == "True" if kind is bool else kind(text)
  return convert.updated(config, changes)


def _views(config: schema.Config) -> Any:
  random = np.random.RandomState(0)
  shape = (config.train.batch_size, *2 * [config.data.image_size], 3)
  return _placed(
    view1=random.rand(*shape).astype(np.float32),
    view2=random.rand(*shape).astype(np.float32),
    label=random.randint(0, _CLASSES, shape[0]).astype(np.int32),
  )


def _crops(config: schema.Config) -> Any:
  random = np.random.RandomState(0)
  count, side = config.train.batch_size, config.data.image_size
  names = spec.enabled_ops(config.augment.view1, config.augment.view2).jitter
  neutral = np.array([spec.COLOUR_OPS[name].neutral for name in names])

  def params() -> spec.AugmentParams:
    order = np.argsort(random.rand(count, len(names)), axis=1)
    amounts = neutral + random.uniform(-0.2, 0.2, (count, len(names)))
    flip, jitter, grayscale, blur, solarize = random.rand(5, count) < 0.5
    return spec.AugmentParams(
      flip=flip,
      jitter=jitter,
      order=order.astype(np.int32),
      amounts=amounts.astype(np.float32),
      grayscale=grayscale,
      blur=blur,
      sigma=random.uniform(0.1, 2, count).astype(np.float32),
      solarize=solarize,
    )

  shape = (count, side, side, 3)
  return _placed(
    view1=random.randint(0, 256, shape, np.uint8),
    view2=random.randint(0, 256, shape, np.uint8),
    params1=params(),
    params2=params(),
    label=random.randint(0, _CLASSES, count).astype(np.int32),
  )


def _images(config: schema.Config) -> Any:
  random = np.random.RandomState(0)
  side = config.data.image_size
  table = {
    "pixels": random.randint(0, 256, (_IMAGES, side, side, 3), np.uint8),
    "sizes": np.full((_IMAGES, 2), side, np.int32),
    "labels": random.randint(0, _CLASSES, _IMAGES).astype(np.int32),
  }
  return tables.place(table, replicated=True)


def _placed(**batch: Any) -> Any:
  (placed,) = devices.prefetch([batch])
  return placed


_INPUTS = {"views": _views, "crops": _crops, "images": _images}


if __name__ == "__main__":
  main()
