"""LiDAR: how many directions tell images apart better than views of one image.

Linear discriminant analysis rank (Thilak et al. 2023, arXiv 2312.04000), where the
classes of the discriminant analysis are single images, whose samples are views.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from byol_jax.augment import device_ops
from byol_jax.data.source import Pairs
from byol_jax.evaluation.metrics import Measurements
from byol_jax.models.encode import make_outputs
from byol_jax.runtime import processes
from byol_jax.training import build, data_streams

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel
  from byol_jax.evaluation.splits import Splits

# Added to the scatter within images: delta of Thilak et al. 2023.
_DELTA = 1e-4


def measure(model: EvalModel, splits: Splits) -> Measurements:
  """Yields LiDAR of the representation and, with a projector, of the projection.

  Args:
    model: the encoder.
    splits: the first images of the evaluated split are looked at, and views of them
      drawn as in pretraining.

  Yields:
    `("lidar", ...)` and `("lidar_projection", ...)`, with the numbers of images
    `looked_at` and of `views` of each.
  """
  options = model.run.config.evaluation.geometry
  size = model.source.num_examples(splits.evaluated)
  images = min(options.lidar_images, size)
  details = {"looked_at": images, "views": 2 * options.lidar_pairs}
  vectors, *projections = _outputs(model, splits.evaluated, images)
  yield "lidar", {"value": lidar(vectors), **details}
  for projection in projections:
    if np.any(projection):  # The heads of an encoder from a file are all zeros.
      yield "lidar_projection", {"value": lidar(projection), **details}


def lidar(vectors: np.ndarray) -> float:
  """Returns the effective rank of the scatter between images, whitened within.

  Args:
    vectors: [N, V, D], V views of each of N images.

  Returns:
    The exponential of the entropy of the eigenvalues of within^-1/2 between
    within^-1/2, normalised to sum 1 (Thilak et al. 2023), in [1, N).
  """
  vectors = vectors.astype(np.float64)
  means = np.mean(vectors, axis=1)
  spread = (vectors - means[:, None]).reshape(-1, vectors.shape[-1])
  within = spread.T @ spread / len(spread) + _DELTA * np.eye(spread.shape[1])
  apart = means - np.mean(means, axis=0)
  # An [N, N] matrix with the same eigenvalues, except for zeros.
  values = np.linalg.eigvalsh(apart @ np.linalg.solve(within, apart.T))
  return effective_rank(np.maximum(values, 0))


def effective_rank(values: np.ndarray) -> float:
  """Returns how many of some values count: their entropy's exponential.

  Args:
    values: [N], not negative: singular values for RankMe (Garrido et al. 2023, arXiv
      2210.02885, eq. 1), eigenvalues for LiDAR. Both papers add 1e-7.
  """
  fractions = values / max(np.sum(values), 1e-12) + 1e-7
  return float(np.exp(-np.sum(fractions * np.log(fractions))))


def _outputs(
  model: EvalModel, split: str, images: int
) -> tuple[np.ndarray, ...]:
  """Returns the embeddings of views and, of a network, their projections.

  Args:
    model: the encoder.
    split: tfds split expression.
    images: number of images, the first of the split.

  Returns:
    One or two arrays [images, views, D].
  """
  config = model.run.config
  pairs = config.evaluation.geometry.lidar_pairs
  # Sources of arrays always leave the views to the device.
  views = build.make_views(config)._replace(placement="device")
  finish = jax.jit(functools.partial(device_ops.apply_to_batch, views))
  process = data_streams.this_process()
  batches = model.source.many_views(
    split,
    views,
    config.data,
    pairs=Pairs(images, pairs),
    batch_size=config.evaluation.batch_size,
    seed=config.seed,
    process=process,
  )
  turns = -(-images * pairs // (config.evaluation.batch_size * process.count))
  encode = _encoder(model)
  found = []
  for batch in itertools.islice(batches, turns):
    finished = finish(batch)
    both = [encode(np.asarray(finished[name])) for name in ("view1", "view2")]
    found.append(
      tuple(
        processes.all_gather_concat(np.stack(of_views, axis=1))
        for of_views in zip(*both, strict=True)
      )
    )
  whole = (
    np.concatenate(parts)[: images * pairs]
    for parts in zip(*found, strict=True)
  )
  return tuple(x.reshape(images, 2 * pairs, -1) for x in whole)


def _encoder(
  model: EvalModel,
) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
  """Returns a function from images to the arrays that LiDAR is computed of."""
  if not model.params:
    return lambda images: (model.encode(images),)
  network = build.build_network(model.run.config, model.run.num_classes)
  outputs = make_outputs(network)
  return lambda images: outputs((model.params, model.state), images)
