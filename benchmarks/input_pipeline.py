"""Measures how fast the input pipeline makes two views of an image.

    python -m benchmarks.input_pipeline --folder=DIR --image_size=224
    python -m benchmarks.input_pipeline --random=32

--folder reads the image files of a folder; --random makes arrays of that side.
--copy_side, --copy_format and --decode_side are the keys `data.*` of these names.
Two views count as one image. Each line measures the pipeline up to a stage: its
rate, and the time of processors per image, which other programs on the machine
disturb less. The last line is JSON. --epochs=10 measures training batches of the folder instead
and reports resident memory after each epoch.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import tensorflow as tf

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data import copies, crops, loading, records, stream, train_input

_SECONDS = 4.0  # Of each of three measurements, whose median is reported.
_ARRAYS = 8192  # Random images, which --random repeats.


def main() -> None:
  """Measures what the command line asks for."""
  parser = argparse.ArgumentParser(description=__doc__)
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument("--folder", help="of image files")
  source.add_argument("--random", type=int, help="side of random arrays")
  parser.add_argument("--copy_side", type=int, default=0)
  parser.add_argument("--copy_format", default="jpeg")
  parser.add_argument("--decode_side", type=int, default=0)
  parser.add_argument("--image_size", type=int)
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--placement", default="host")
  parser.add_argument("--epochs", type=int, default=0)
  options = parser.parse_args()
  views = _views(options.image_size or options.random or 224, options.placement)
  if options.epochs:
    _measure_memory(options.folder, views, options.batch_size, options.epochs)
  else:
    _measure_speed(options, views)


def _views(image_size: int, placement: str) -> spec.Views:
  """Returns the paper's two views."""
  settings = schema.AugmentConfig()
  return spec.Views(
    settings.view1,
    settings.view2,
    (image_size, image_size),
    placement=placement,
  )


def _measure_speed(options, views: spec.Views) -> None:
  images, parse = _files(options) if options.folder else _arrays(options.random)
  examples = tf.data.Dataset.from_tensor_slices(images).repeat().enumerate()

  def crop_twice(position, record):
    image, _ = parse(record)
    seed = tf.stack([tf.constant(0, tf.int64), position])
    return crops.two_random_crops(image, views, seed)

  batches = train_input.augment(
    examples, parse, views, options.batch_size, 0, os.cpu_count() or 1
  )
  stages = {
    "decode": (
      examples.map(lambda _, r: tf.shape(parse(r)[0]), tf.data.AUTOTUNE),
      1,
    ),
    "decode, crop twice": (examples.map(crop_twice, tf.data.AUTOTUNE), 1),
    "all, batched": (batches, options.batch_size),
  }
  stream.keep_freed_memory()
  measured = {name: _measure(*stage) for name, stage in stages.items()}
  for name, (rate, cost) in measured.items():
    print(f"{name:24}{rate:10,.0f} images/s{cost:10.3f} ms of a core per image")
  print(
    json.dumps(
      {
        "benchmark": "input_pipeline",
        "placement": views.placement,
        "image_size": views.image_shape[0],
        "batch_size": options.batch_size,
        "images_per_second": round(measured["all, batched"][0], 1),
        "stages": {
          name: round(rate, 1) for name, (rate, _) in measured.items()
        },
        "core_ms_per_image": {
          name: round(cost, 3) for name, (_, cost) in measured.items()
        },
      }
    )
  )


def _files(options):
  folder = pathlib.Path(options.folder)
  images = [p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()]
  is_raw = options.copy_format == "raw"
  if options.copy_side:
    images = [_copied(image, options.copy_side, is_raw) for image in images]
  decode = records.image_decoder(3, options.decode_side, is_raw=is_raw)

  def parse(data):
    return tf.ensure_shape(decode(data), [None, None, 3]), tf.constant(-1)

  return tf.constant(images), parse


def _copied(data: bytes, side: int, is_raw: bool) -> bytes:
  """Returns an image file as a copy of a data set holds it."""
  image = tf.io.decode_image(data, channels=3).numpy()
  return copies.encode_smaller(image, side, is_raw=is_raw) or data


def _arrays(side: int):
  shape = (_ARRAYS, side, side, 3)
  arrays = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
  return tf.constant(arrays), lambda image: (image, tf.constant(-1))


def _measure(dataset: tf.data.Dataset, images: int) -> tuple[float, float]:
  """Measures a data set of `images` per element.

  Returns:
    Images per second, and milliseconds of processor time per image.
  """
  iterator = iter(dataset.prefetch(tf.data.AUTOTUNE))
  for _ in range(max(200 // images, 3)):  # Compiles and fills buffers.
    next(iterator)
  rates, costs = [], []
  for _ in range(3):
    start, used, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - start < _SECONDS:
      next(iterator)
      count += images
    rates.append(count / (time.monotonic() - start))
    costs.append((time.process_time() - used) / count * 1e3)
  return statistics.median(rates), statistics.median(costs)


def _measure_memory(
  folder: str, views: spec.Views, batch_size: int, epochs: int
) -> None:
  options = schema.DataConfig(
    labels="none", test_share=0.0, max_broken=0.5, parts=1
  )
  source = loading.load_folder(folder, options)
  size = loading.num_examples(source, "train")
  batches = train_input.train_batches(
    source,
    views,
    options,
    batch_size=batch_size,
    seed=0,
  )
  resident = []
  for epoch in range(1, epochs + 1):
    slowest, start = 0.0, time.monotonic()
    for _ in range(size // batch_size):
      requested = time.monotonic()
      next(batches)
      slowest = max(slowest, time.monotonic() - requested)
    seconds = time.monotonic() - start
    resident.append(_resident())
    print(
      f"epoch {epoch}: {resident[-1]:,.0f} MB resident,"
      f" {size / seconds:,.0f} images/s, longest wait {slowest:.2f} s"
    )
  print(
    json.dumps(
      {"benchmark": "input_memory", "images": size, "resident_mb": resident}
    )
  )


def _resident() -> float:
  """Returns resident memory, MB; the peak so far where /proc is missing."""
  status = pathlib.Path("/proc/self/statm")
  if status.exists():
    pages = int(status.read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
  main()
