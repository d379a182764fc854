"""Small encoders in files, without a run that trained them."""

import zlib

import jax
import numpy as np
import safetensors.numpy

from byol_jax import config
from byol_jax.config import convert
from byol_jax.interop import encoder_file
from byol_jax.learning.learner import TrainState
from byol_jax.training import build

SIDE = 32


def save(path, *, precision="float32", class_names=(), **encoder) -> None:
  """Writes a TinyResNet with random parameters for images of 32 pixels.

  Args:
    path: of the file.
    precision: in which convolutions compute.
    class_names: of the data that it was trained on.
    **encoder: fields of `EncoderConfig`.
  """
  settings = convert.typed(config.default_config())
  settings.data.image_size = SIDE
  settings.data.dataset, settings.data.root = "folder", "/home/me/photos/"
  settings.data.labels = "/home/me/labels.csv"
  settings.model.encoder.init_from = "/home/me/old.safetensors"
  settings.train.precision = precision
  options = {"name": "TinyResNet"} | encoder
  for name, value in options.items():
    setattr(settings.model.encoder, name, value)
  network = build.build_encoder(settings)
  image = np.zeros((1, SIDE, SIDE, 3), np.float32)
  params, state = jax.eval_shape(
    lambda key: network.init(key, image, is_training=True), jax.random.key(0)
  )
  random = np.random.RandomState(0)

  def draw(x):
    if len(x.shape) == 4 and x.shape[0] > 1:
      values = random.randn(*x.shape) / np.sqrt(np.prod(x.shape[:-1]))
    else:  # Of batch norm, whose variances are positive.
      values = random.uniform(0.5, 1.5, x.shape)
    return np.asarray(values, x.dtype)

  params, state = jax.tree.map(draw, (params, state))
  state = TrainState(np.int32(7), params, {}, state, {}, ())
  encoder_file.write(path, settings, state, class_names)


def rewrite(source, path, *, keep_checksums=False, **metadata) -> None:
  """Copies an encoder's file with other metadata.

  Args:
    source: the file.
    path: of the copy.
    keep_checksums: whether the copy has those of the original; else it has none of
      the arrays, and the right one of what the file tells.
    **metadata: those that differ; None leaves one out.
  """
  with safetensors.safe_open(source, "numpy") as file:
    old = file.metadata()
  if not keep_checksums:
    del old["checksums"]
    about = metadata.get("about", old["about"])
    old["about_checksum"] = str(zlib.crc32(about.encode()))
  new = {k: v for k, v in (old | metadata).items() if v is not None}
  safetensors.numpy.save_file(safetensors.numpy.load_file(source), path, new)


def images(count: int) -> np.ndarray:
  """Returns random images as bytes."""
  shape = (count, SIDE, SIDE, 3)
  return np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)
