"""A file of arrays as a data set, for machines without TensorFlow.

The images are decoded, so training needs neither tfds nor TensorFlow. Order and
crops are those of the same images in tfds, see `augment.device_random`.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import errors
from byol_jax.augment import device_batches, device_random, spec
from byol_jax.config import schema
from byol_jax.data import (
  array_crops,
  array_file,
  split_expressions,
  statistics,
)
from byol_jax.data.images import Images, Shape, accept, in_channels
from byol_jax.data.registry import Dataset, Statistics
from byol_jax.data.source import (
  WHOLE_BATCH,
  Batches,
  CentreCrop,
  Pairs,
  ProcessSlice,
  RandomCrop,
  all_splits,
)


class ArraySource(NamedTuple):
  """A file of arrays, as `data.source.Source` describes it.

  Attributes:
    dataset: where the data set comes from and what its splits are for.
    splits: the images of each split.
    class_names: names of the classes by label; empty if there are no labels.
    fingerprint: a checksum of all images and labels.
  """

  dataset: Dataset
  splits: Mapping[str, Images]
  class_names: Sequence[str]
  fingerprint: str
  broken: Sequence[tuple[str, str]] = ()
  notes: Sequence[str] = ()

  @property
  def location(self) -> str:
    """The path of the file."""
    return self.dataset.tfds_name

  @property
  def num_classes(self) -> int:
    """The number of classes; 0 if there are no labels."""
    return len(self.class_names)

  @property
  def is_multi_label(self) -> bool:
    """Whether an image may belong to more than one class."""
    return self.dataset.metric == "map11"

  def with_metric(self, metric: str) -> "ArraySource":
    """See `data.source.Source`, also for all that follow."""
    return self._replace(dataset=self.dataset._replace(metric=metric))

  def select(self, split: str, fraction: float) -> "ArraySource":  # noqa: D102
    if split == "all":
      split = all_splits(self)
    split = split or self.dataset.pretrain
    parts = self._ranges(split)
    if not sum(len(rows) for _, rows in parts):
      sizes = [f"{name} ({n})" for name, n in self.split_sizes().items()]
      raise errors.UserError(
        f"data.split={split!r} selects no images; combine the splits of"
        f" {self.location} or their parts, as in train[:10%]+test, from:"
        f" {', '.join(sizes)}."
      )
    if fraction < 1:
      counts = [
        max(round(fraction * len(rows)), min(len(rows), 1)) for _, rows in parts
      ]
      split = "+".join(
        f"{name}[{rows.start}:{rows.start + count}]"
        for (name, rows), count in zip(parts, counts, strict=True)
      )
    return self._replace(dataset=self.dataset._replace(pretrain=split))

  def small_copy(  # noqa: D102
    self, options: schema.DataConfig, tell: Callable[[str], None]
  ) -> "ArraySource":
    del tell
    raise errors.UserError(
      f"data.copy_side={options.copy_side} has no use for {self.location}, whose"
      " images are in memory and decoded; leave it at 0."
    )

  def split_sizes(self) -> Mapping[str, int]:  # noqa: D102
    return {name: len(x.labels) for name, x in self.splits.items()}

  def num_examples(self, split: str) -> int:  # noqa: D102
    return sum(len(rows) for _, rows in self._ranges(split))

  def num_shared(self, split: str, other: str) -> int:  # noqa: D102
    return sum(
      max(min(a.stop, b.stop) - max(a.start, b.start), 0)
      for name, a in self._ranges(split)
      for other_name, b in self._ranges(other)
      if name == other_name
    )

  def example_ids(self, split: str) -> list[str]:  # noqa: D102
    return [f"{name}__{i}" for name, rows in self._ranges(split) for i in rows]

  def split_names(self, split: str) -> list[str]:  # noqa: D102
    return [name for name, rows in self._ranges(split) for _ in rows]

  def contents_key(self, split: str) -> Any:  # noqa: D102
    ranges = self._ranges(split)
    return [self.fingerprint, *([n, r.start, r.stop] for n, r in ranges)]

  def measure(self) -> Statistics:  # noqa: D102
    channels = self.splits["train"].pixels.shape[-1]
    images = self.decode(
      self.dataset.pretrain, 3 if channels == 1 else channels
    )
    sides = images.sizes.min(axis=1)
    moments = [
      statistics.channel_moments(pixels[:height, :width])
      for pixels, (height, width) in zip(
        images.pixels[:1000], images.sizes, strict=False
      )
    ]
    return statistics.summarize(moments, sides.tolist())

  def decode(  # noqa: D102
    self,
    split: str,
    channels: int,
    *,
    multi_label: bool = False,
    check: Callable[[Shape, int], None] = accept,
  ) -> Images:
    parts = [
      Images(*(x[rows.start : rows.stop] for x in self.splits[name]))
      for name, rows in self._ranges(split)
    ]
    images = parts[0] if len(parts) == 1 else array_file.joined(parts)
    check((*images.pixels.shape[:3], channels), images.pixels.itemsize)
    if images.pixels.shape[-1] != channels:
      images = images._replace(pixels=in_channels(images.pixels, channels))
    if images.labels.ndim > 1 and not multi_label:
      images = images._replace(labels=np.full(len(images.labels), -1, np.int32))
    return images

  def train_batches(  # noqa: D102
    self, views: spec.Views, options: schema.DataConfig, **kwargs: Any
  ) -> Iterator[dict[str, Any]]:
    raise errors.UserError(
      f"data.dataset=arrays needs data.placement=device, not"
      f" {options.placement}; set --config.data.placement=device."
    )

  def first_views(  # noqa: D102
    self,
    views: spec.Views,
    options: schema.DataConfig,
    *,
    count: int,
    seed: int,
  ) -> tuple[list[np.ndarray], dict[str, Any]]:
    images = self.decode(self.dataset.pretrain, views.channels)
    stream = device_batches.Stream(views, seed, len(images.labels), count)
    rows = device_batches.order(stream, jnp.int32(0))
    originals = [
      images.pixels[row, :height, :width]
      for row, (height, width) in zip(rows, images.sizes[rows], strict=True)
    ]
    table = jax.tree.map(jnp.asarray, images._asdict())
    return originals, device_batches.draw(stream, table, jnp.int32(0))

  def eval_batches(  # noqa: D102
    self,
    split: str,
    crop: CentreCrop,
    *,
    batch_size: int,
    indices: range | None = None,
    process: ProcessSlice = WHOLE_BATCH,
  ) -> Batches:
    images = self.decode(split, crop.channels, multi_label=True)
    rows = np.arange(len(images.labels))[_as_slice(indices)]
    turn = batch_size * process.count
    if process.count > 1:
      rows = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % turn)])
    for start in range(0, len(rows), turn):
      chosen = rows[start : start + turn]
      if process.count > 1:
        own = process.indices(turn)
        chosen = chosen[own.start : own.stop]
      yield {
        "image": array_crops.centres(images, chosen, crop),
        "label": images.labels[chosen],
      }

  def many_views(  # noqa: D102
    self,
    split: str,
    views: spec.Views,
    options: schema.DataConfig,
    *,
    pairs: Pairs,
    batch_size: int,
    seed: int,
    process: ProcessSlice = WHOLE_BATCH,
  ) -> Iterator[dict[str, Any]]:
    del options
    table = self.decode(split, views.channels)
    draw = jax.jit(functools.partial(device_batches.views_of, views, seed))
    for turn in itertools.count(process.index, process.count):
      positions = turn * batch_size + np.arange(batch_size)
      rows = positions // pairs.each % pairs.images
      chosen = Images(*(x[rows] for x in table))._asdict()
      yield draw(chosen, array_crops.wide(positions))

  def labelled_batches(  # noqa: D102
    self,
    split: str,
    indices: range | np.ndarray,
    crop: RandomCrop,
    options: schema.DataConfig,
    *,
    batch_size: int,
    seed: int,
    process: ProcessSlice = WHOLE_BATCH,
  ) -> Batches:
    del options
    images = self.decode(split, crop.channels, multi_label=True)
    rows = np.sort(np.asarray(indices))
    # As `eval_input.labelled_batches` does.
    seeds = device_random.wide(seed), device_random.wide(-2)
    own = process.indices(batch_size)
    for step in itertools.count():
      positions = step * batch_size + np.arange(own.start, own.stop)
      chosen = rows[array_crops.shuffled(seeds, positions, len(rows))]
      yield {
        "image": array_crops.at_random(images, chosen, positions, crop, seed),
        "label": images.labels[chosen],
      }

  def _ranges(self, split: str) -> list[tuple[str, range]]:
    return split_expressions.ranges(split, self.split_sizes(), self.location)


def load(path: str) -> ArraySource:
  """Opens a file of arrays; see `array_file.read` for its contents.

  Raises:
    UserError: if the file cannot be read, or its arrays do not belong together.
  """
  if not path:
    raise errors.UserError(
      "data.root is empty; set it to the file of arrays, as in"
      " --config.data.root=FILE.npz."
    )
  path = os.path.abspath(os.path.expanduser(path))
  splits, about = array_file.read(path)
  dataset = Dataset(
    path,
    statistics=about.statistics,
    pretrain=about.pretrain,
    validation="validation" if "validation" in splits else "",
    test="test" if "test" in splits else "",
    metric=about.metric,
  )
  fingerprint = array_file.fingerprint(splits)
  return ArraySource(dataset, splits, about.class_names, fingerprint)


def _as_slice(indices: range | None) -> slice:
  return slice(None) if indices is None else slice(indices.start, indices.stop)
