"""A data set that tfds reads, as `data.source.Source` describes it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from byol_jax.augment import spec
from byol_jax.config import schema
from byol_jax.data.folder_inspect import BrokenFile
from byol_jax.data.images import Images
from byol_jax.data.registry import Dataset, Statistics
from byol_jax.data.source import Batches, CentreCrop, RandomCrop

# The methods import what they call late, since those modules work on a source.


class Source(NamedTuple):
  """A data set of tfds, or a folder of images, that is ready to be read.

  Attributes:
    builder: reads the records.
    dataset: where the data set comes from and what its splits are for.
    class_names: names of the classes by label; empty if there are no labels.
    broken: files of a folder of images that are left out.
    notes: what the program made of a folder of images, a line each.
    fingerprint: a checksum of a folder of images, wherever the folder is; ""
      for other data sets.
    is_raw: whether the records hold images as `records.to_raw` makes them, and not
      encoded files.
  """

  builder: tfds.core.DatasetBuilder
  dataset: Dataset
  class_names: Sequence[str]
  broken: Sequence[BrokenFile] = ()
  notes: Sequence[str] = ()
  fingerprint: str = ""
  is_raw: bool = False

  @property
  def location(self) -> str:
    """The folder of the records."""
    return str(self.builder.data_dir)

  @property
  def num_classes(self) -> int:
    """The number of classes; 0 if there are no labels."""
    return len(self.class_names)

  @property
  def is_multi_label(self) -> bool:
    """Whether an image may belong to more than one class."""
    return self.dataset.metric == "map11"

  def with_metric(self, metric: str) -> "Source":
    """See `data.source.Source`, also for all that follow."""
    return self._replace(dataset=self.dataset._replace(metric=metric))

  def select(self, split: str, fraction: float) -> "Source":  # noqa: D102
    from byol_jax.data import loading

    return loading.select(self, split, fraction)

  def small_copy(  # noqa: D102
    self, options: schema.DataConfig, tell: Callable[[str], None]
  ) -> "Source":
    from byol_jax.data import copies

    return copies.open_copy(self, options, tell)

  def split_sizes(self) -> Mapping[str, int]:  # noqa: D102
    splits = self.builder.info.splits
    return {name: info.num_examples for name, info in splits.items()}

  def num_examples(self, split: str) -> int:  # noqa: D102
    from byol_jax.data import loading

    return loading.num_examples(self, split)

  def num_shared(self, split: str, other: str) -> int:  # noqa: D102
    from byol_jax.data import split_contents

    return split_contents.num_shared(self, split, other)

  def example_ids(self, split: str) -> list[str]:  # noqa: D102
    from byol_jax.data import split_contents

    return split_contents.example_ids(self, split)

  def split_names(self, split: str) -> list[str]:  # noqa: D102
    from byol_jax.data import split_contents

    return split_contents.split_names(self, split)

  def contents_key(self, split: str) -> Any:  # noqa: D102
    from byol_jax.data import split_contents

    return split_contents.cache_key(self, split)

  def measure(self) -> Statistics:  # noqa: D102
    from byol_jax.data import measure

    return measure.measure_statistics(self)

  def decode(  # noqa: D102
    self, split: str, channels: int, **kwargs: Any
  ) -> Images:
    from byol_jax.data import decode_all

    return decode_all.decode(self, split, channels, **kwargs)

  def train_batches(  # noqa: D102
    self, views: spec.Views, options: schema.DataConfig, **kwargs: Any
  ) -> Iterator[dict[str, Any]]:
    from byol_jax.data import train_input

    return train_input.train_batches(self, views, options, **kwargs)

  def first_views(  # noqa: D102
    self, views: spec.Views, options: schema.DataConfig, **kwargs: Any
  ) -> tuple[list[np.ndarray], dict[str, Any]]:
    from byol_jax.data import train_input

    return train_input.first_views(self, views, options, **kwargs)

  def eval_batches(  # noqa: D102
    self, split: str, crop: CentreCrop, **kwargs: Any
  ) -> Batches:
    from byol_jax.data import eval_input

    return eval_input.eval_batches(self, split, crop, **kwargs)

  def many_views(  # noqa: D102
    self,
    split: str,
    views: spec.Views,
    options: schema.DataConfig,
    **kwargs: Any,
  ) -> Iterator[dict[str, Any]]:
    from byol_jax.data import eval_input

    return eval_input.many_views(self, split, views, options, **kwargs)

  def labelled_batches(  # noqa: D102
    self,
    split: str,
    indices: range | np.ndarray,
    crop: RandomCrop,
    options: schema.DataConfig,
    **kwargs: Any,
  ) -> Batches:
    from byol_jax.data import eval_input

    return eval_input.labelled_batches(
      self, split, indices, crop, options, **kwargs
    )
