"""What the rest of the program asks of a data set, whatever holds it."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data.images import Images, Shape, accept
from byol_jax.data.registry import Dataset, Statistics


class CentreCrop(NamedTuple):
  """How an image is shown to an evaluation.

  Attributes:
    image_shape: height and width of the result, pixels.
    fraction: sides of the central region, see `sampling.centre_box`.
    channels: 3, 1 for grey images, or those that a file of arrays has.
  """

  image_shape: tuple[int, int]
  fraction: float
  channels: int = 3


class RandomCrop(NamedTuple):
  """How an image is shown to a classifier in training.

  Attributes:
    image_shape: height and width of the result, pixels.
    region: how the crop is drawn and how often it is flipped.
    channels: 3, 1 for grey images, or those that a file of arrays has.
  """

  image_shape: tuple[int, int]
  region: spec.Crop
  channels: int = 3


class Pairs(NamedTuple):
  """How many pairs of views are wanted.

  Attributes:
    images: number of images, the first of a split and at most all of them.
    each: pairs of each of them.
  """

  images: int
  each: int


@dataclasses.dataclass(frozen=True)
class ProcessSlice:
  """The part of every batch that one of several processes makes.

  Attributes:
    index: index of the process, from 0.
    count: number of processes.
  """

  index: int = 0
  count: int = 1

  def indices(self, batch_size: int) -> range:
    """Returns the indices in a batch that this process makes.

    The slices of all processes follow one another and make up the batch. Their
    sizes differ by at most one.
    """
    first = batch_size * self.index // self.count
    return range(first, batch_size * (self.index + 1) // self.count)


WHOLE_BATCH = ProcessSlice()
# Examples, as `eval_batches` yields them.
Batches = Iterator[dict[str, np.ndarray]]


class Source(Protocol):
  """A data set that is ready to be read.

  `loading` opens those that tfds reads, `array_source` a file of arrays. Splits are
  expressions of tfds, such as `train[:10%]+test`. All methods raise `UserError` if
  there is no such split or a file cannot be read.
  """

  @property
  def dataset(self) -> Dataset:
    """Where the data set comes from and what its splits are for."""

  @property
  def class_names(self) -> Sequence[str]:
    """Names of the classes by label; empty if there are no labels."""

  @property
  def broken(self) -> Sequence[tuple[str, str]]:
    """Files that are left out, each with the reason."""

  @property
  def notes(self) -> Sequence[str]:
    """What the program made of the data, a line each."""

  @property
  def fingerprint(self) -> str:
    """A checksum of the images wherever they lie; "" where none is known."""

  @property
  def location(self) -> str:
    """Where the examples lie, which tells data sets apart."""

  @property
  def num_classes(self) -> int:
    """The number of classes; 0 if there are no labels."""

  @property
  def is_multi_label(self) -> bool:
    """Whether an image may belong to more than one class."""

  def with_metric(self, metric: str) -> "Source":
    """Returns the data set with another metric of its evaluations."""

  def select(self, split: str, fraction: float) -> "Source":
    """Returns the data set with another part to pretrain on."""

  def small_copy(
    self, options: schema.DataConfig, tell: Callable[[str], None]
  ) -> "Source":
    """Returns a copy with smaller images; see `copies.open_copy`."""

  def split_sizes(self) -> Mapping[str, int]:
    """Returns the number of examples of each split."""

  def num_examples(self, split: str) -> int:
    """Returns the number of examples of a split expression."""

  def num_shared(self, split: str, other: str) -> int:
    """Returns how many examples two split expressions have in common."""

  def example_ids(self, split: str) -> list[str]:
    """Returns an id of each example, such as its file name."""

  def split_names(self, split: str) -> list[str]:
    """Returns the name of the split of each example."""

  def contents_key(self, split: str) -> Any:
    """Returns values for JSON that change when the examples do."""

  def measure(self) -> Statistics:
    """Returns the statistics of the images to pretrain on."""

  def decode(
    self,
    split: str,
    channels: int,
    *,
    multi_label: bool = False,
    check: Callable[[Shape, int], None] = accept,
  ) -> Images:
    """Returns all examples of a split in memory; see `decode_all.decode`."""

  def train_batches(
    self,
    views: spec.Views,
    options: schema.DataConfig,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process: ProcessSlice = WHOLE_BATCH,
  ) -> Iterator[dict[str, Any]]:
    """Returns endless batches of views; see `train_input.train_batches`."""

  def first_views(
    self,
    views: spec.Views,
    options: schema.DataConfig,
    *,
    count: int,
    seed: int,
  ) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Returns images and their views; see `train_input.first_views`."""

  def eval_batches(
    self,
    split: str,
    crop: CentreCrop,
    *,
    batch_size: int,
    indices: range | None = None,
    process: ProcessSlice = WHOLE_BATCH,
  ) -> Batches:
    """Returns each example once; see `eval_input.eval_batches`."""

  def many_views(
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
    """Returns several pairs of views of each image; see `eval_input.many_views`."""

  def labelled_batches(
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
    """Returns endless random crops; see `eval_input.labelled_batches`."""


def all_splits(source: Source) -> str:
  """Returns the split expression of all examples."""
  sizes = source.split_sizes()
  return "+".join(name for name, size in sizes.items() if size)
