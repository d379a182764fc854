"""What the cached features of an evaluation say about single images.

The features are those that evaluations keep in the workdir, so that a report needs
no network. Files of examples are shuffled, so their first examples are a random
choice of all, and reading these few is quick.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from byol_jax.data.source import Source
from byol_jax.evaluation import (
  eval_model,
  feature_cache,
  knn,
  metrics,
  neighbours,
)
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.features import Features, same_class
from byol_jax.reporting.images import Images, class_text
from byol_jax.reporting.images import read as read_images
from byol_jax.runtime import files
from byol_jax.training import runs

# The images on the map, and those whose neighbours are shown: our choice, what one
# page has room for.
_ON_MAP, _QUERIES, _NEIGHBOURS = 300, 6, 6
# Test images that kNN classifies and train images that it searches: our choice,
# seconds on a CPU.
_CLASSIFIED, _SEARCHED = 2000, 50_000


class Evaluated(NamedTuple):
  """Evaluated images with their features.

  Attributes:
    split: of the images.
    images: [N, H, W, 3 or 1] in [0, 1].
    vectors: [N, D].
    names: [N], the classes of the images, empty where unknown.
  """

  split: str
  images: np.ndarray
  vectors: np.ndarray
  names: list[str]


class Map(NamedTuple):
  """Features of a few images on their first two principal components.

  Attributes:
    split: of the images.
    images: [N, H, W, 3 or 1] in [0, 1].
    points: [N, 2].
    explained: the fractions of the variance that the two components hold.
    labels: [N], -1 where an image has no class or several.
  """

  split: str
  images: np.ndarray
  points: np.ndarray
  explained: tuple[float, float]
  labels: np.ndarray


class Found(NamedTuple):
  """The nearest neighbours of some images by one encoder.

  Attributes:
    images: [R, K, H, W, 3 or 1], the nearest first.
    agree: [R, K] bool, whether a neighbour shares a class with its query; None
      without labels.
    names: [R, K], the classes of the neighbours.
  """

  images: np.ndarray
  agree: np.ndarray | None
  names: list[list[str]]


class Neighbours(NamedTuple):
  """Images with their neighbours before and after training.

  Attributes:
    images: [R, H, W, 3 or 1] in [0, 1].
    names: [R], the classes of the images.
    after: by the trained encoder.
    before: by the untrained one; None if its features were not kept.
  """

  images: np.ndarray
  names: list[str]
  after: Found
  before: Found | None


class Classes(NamedTuple):
  """How kNN classifies test images, class by class.

  Attributes:
    metric: whose value each class has.
    examples: test images that were classified.
    searched: train images that kNN searched.
    values: [C], NaN for a class without test images.
    counts: [C], test images of each class.
    confusion: [C, C] counts, by true and by predicted class; None where an image
      may have several classes.
  """

  metric: str
  examples: int
  searched: int
  values: np.ndarray
  counts: np.ndarray
  confusion: np.ndarray | None


class Examples(NamedTuple):
  """Everything that is known; parts whose features are missing are None.

  Attributes:
    class_names: by label.
    map: of test images, or of train images where there is no test split.
    neighbours: of such images among train images.
    classes: of such images, by kNN.
  """

  class_names: list[str]
  map: Map | None = None
  neighbours: Neighbours | None = None
  classes: Classes | None = None


def gather(run: runs.Run) -> Examples:
  """Returns what the features that evaluations keep in the workdir show.

  Raises:
    UserError: the images of these features cannot be read.
  """
  if not _kept(run).exists():
    return Examples([])
  source = splits_lib.open_source(run)
  splits = splits_lib.make_splits(run, source)
  found = Examples(list(source.class_names))
  features = functools.partial(_features, run, source)
  queries = features(eval_model.ONLINE, splits.evaluated, _CLASSIFIED)
  if queries is None:
    return found
  shown = queries.select(range(_ON_MAP))
  indices = np.arange(len(shown.labels))
  images, _ = read_images(run, source, splits.evaluated, indices)
  found = found._replace(map=_make_map(splits.evaluated, images, shown))
  bank = features(eval_model.ONLINE, splits.train, _SEARCHED)
  if bank is None:
    return found
  before = None
  old = features(eval_model.RANDOM, splits.train, _SEARCHED)
  old_queries = features(eval_model.RANDOM, splits.evaluated, _QUERIES)
  if old is not None and old_queries is not None:
    before = _nearest(old_queries, old, is_bank=not splits.test)
  few = shown.select(range(_QUERIES))
  after = _nearest(few, bank, is_bank=not splits.test)
  found = found._replace(
    neighbours=_show_neighbours(
      source,
      lambda indices: read_images(run, source, splits.train, indices),
      Images(images[: len(after)], few.labels),
      after,
      before,
    )
  )
  if splits.test and np.all(queries.labels >= 0) and np.all(bank.labels >= 0):
    found = found._replace(classes=_classify(run, source, queries, bank))
  return found


def evaluated(run: runs.Run, most: int) -> Evaluated | None:
  """Returns the first evaluated images with their features; None without features.

  Raises:
    UserError: the images cannot be read.
  """
  if not _kept(run).exists():
    return None
  source = splits_lib.open_source(run)
  split = splits_lib.make_splits(run, source).evaluated
  found = _features(run, source, eval_model.ONLINE, split, most)
  if found is None:
    return None
  images, labels = read_images(run, source, split, np.arange(len(found.labels)))
  names = [class_text(label, source.class_names) for label in labels]
  return Evaluated(split, images, found.vectors, names)


def _kept(run: runs.Run) -> pathlib.Path:
  return files.scratch(run.workdir / "features")


def _features(
  run: runs.Run, source: Source, model_name: str, split: str, most: int
) -> Features | None:
  """Returns the first features of a split that an evaluation has kept."""
  name = f"{model_name}_{splits_lib.file_name(source, split)}"
  cached = feature_cache.load(_kept(run) / name, source.contents_key(split))
  return cached and cached.select(range(most))


def principal_components(
  vectors: np.ndarray,
) -> tuple[np.ndarray, tuple[float, float]]:
  """Returns vectors on their first two principal components.

  Args:
    vectors: [N, D].

  Returns:
    [N, 2], and the fractions of the variance that the two hold; zeros where there
    is no variance, or only one component.
  """
  centred = vectors - np.mean(vectors, axis=0)
  # From the eigenvectors of [N, N], since there are fewer vectors than dimensions.
  values, left = np.linalg.eigh((centred @ centred.T).astype(np.float64))
  values = np.maximum(values[::-1], 0)
  points = np.zeros((len(vectors), 2))
  fractions = np.zeros(2)
  count = min(2, len(values))
  points[:, :count] = left[:, ::-1][:, :count] * np.sqrt(values[:count])
  fractions[:count] = values[:count] / max(np.sum(values), 1e-12)
  return points, (float(fractions[0]), float(fractions[1]))


def _make_map(split: str, images: np.ndarray, shown: Features) -> Map:
  # Evaluations compare features by cosine, so length does not count here either.
  points, explained = principal_components(
    neighbours.l2_normalize(shown.vectors)
  )
  labels = shown.labels
  if labels.ndim == 2:
    one = np.sum(labels > 0, axis=1) == 1
    labels = np.where(one, np.argmax(labels, axis=1), -1)
  return Map(split, images, points, explained, labels)


def _nearest(queries: Features, bank: Features, *, is_bank: bool) -> np.ndarray:
  """Returns the indices [R, K] of the neighbours of all queries."""
  return neighbours.nearest(
    queries.vectors,
    bank.vectors,
    k=min(_NEIGHBOURS, len(bank.labels) - int(is_bank)),
    self_indices=np.arange(len(queries.labels)) if is_bank else None,
  )[0]


def _show_neighbours(
  source: Source,
  read: Callable[[np.ndarray], Images],
  queries: Images,
  after: np.ndarray,
  before: np.ndarray | None,
) -> Neighbours:
  """Returns the pictures and the names of classes of neighbours.

  Args:
    source: the data set.
    read: returns the images and labels of indices into the train split.
    queries: the images whose neighbours were searched for.
    after: [R, K], indices into the train split.
    before: likewise; None if unknown.
  """
  both = [after] if before is None else [after, before]
  images, labels = read(np.stack(both))
  names = source.class_names

  def found(i: int) -> Found:
    agree, wanted = None, queries.labels[:, None]
    if np.all(wanted >= 0):
      is_multi = source.is_multi_label
      agree = same_class(labels[i], wanted, multi_label=is_multi)
    texts = [[class_text(label, names) for label in row] for row in labels[i]]
    return Found(images[i], agree, texts)

  return Neighbours(
    queries.images,
    [class_text(label, names) for label in queries.labels],
    found(0),
    found(1) if len(both) == 2 else None,
  )


def _classify(
  run: runs.Run, source: Source, queries: Features, bank: Features
) -> Classes:
  options: Any = run.config.evaluation.knn
  votes = knn.votes(
    bank,
    queries.vectors,
    k=min(options.k, len(bank.labels)),
    temperature=options.temperature,
    num_classes=source.num_classes,
  )
  labels, count = queries.labels, source.num_classes
  metric = metrics.METRICS[source.dataset.metric]
  # A class that comes last in the data may have no test image.
  values = np.full(count, np.nan)
  found = metric.per_class(labels, metric.predict(votes))
  values[: len(found)] = found
  confusion, counts = None, np.sum(labels > 0, axis=0)
  if labels.ndim == 1:
    cells = labels * count + np.argmax(votes, axis=1)
    confusion = np.bincount(cells, minlength=count**2).reshape(count, count)
    counts = np.bincount(labels, minlength=count)
  sizes = len(labels), len(bank.labels)
  return Classes(source.dataset.metric, *sizes, values, counts, confusion)
