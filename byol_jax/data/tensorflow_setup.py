"""Configures TensorFlow, which only reads and prepares images here."""

import functools
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf
from absl import logging

F = TypeVar("F", bound=Callable)


def without_autograph(function: F) -> F:
  """Builds the tf.data pipelines of a function without AutoGraph.

  AutoGraph rewrites Python's `if` and loops over tensors, of which there are none
  here, and takes about a second for each pipeline to find that out.
  """
  return tf.autograph.experimental.do_not_convert(function)


@functools.cache
def configure_tensorflow() -> None:
  """Hides GPUs from TensorFlow and runs each of its operations on one thread.

  Everything that opens a data set calls this first, because TensorFlow accepts
  these settings only before its first operation. Later calls do nothing. In a
  program that has already run TensorFlow, its settings stay and a warning is
  logged.
  """
  try:
    # JAX needs the GPUs' memory, all of which TensorFlow would reserve.
    tf.config.set_visible_devices([], "GPU")
    # The pipeline processes one image per core. Splitting each operation among
    # the cores as well costs more than it gains: a fifth of the throughput, as
    # measured on two cores with images of 224 pixels.
    tf.config.threading.set_intra_op_parallelism_threads(1)
  except RuntimeError as error:
    logging.warning(
      "TensorFlow was used before byol_jax opened a data set, so it may hold"
      " GPU memory and run slower: %s",
      error,
    )
