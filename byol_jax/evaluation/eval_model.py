"""The encoders under evaluation: the trained one and its baselines."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import haiku as hk
import numpy as np

from byol_jax.config import schema
from byol_jax.data.source import RandomCrop, Source
from byol_jax.evaluation import feature_cache, features
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.features import Features
from byol_jax.learning.learner import TrainState
from byol_jax.models.encode import Encode, make_encode
from byol_jax.runtime import console, files, processes
from byol_jax.training import build, data_streams, runs

ONLINE, PIXELS, RANDOM = "online", "pixels", "random"

# The cached features of images with more values than this would take more room
# than the images' files (48 x 48 pixels in colour); our choice.
_MAX_PIXEL_VALUES = 8192


@dataclasses.dataclass(frozen=True)
class EvalModel:
  """An encoder, or a stand-in for one, and the data set it is evaluated on.

  Attributes:
    run: the run of the encoder; images are prepared as in this run.
    source: the data set to evaluate on.
    name: ONLINE, PIXELS or RANDOM.
    encode: from images to features.
    cache_key: distinguishes the encoder's features from those of any other.
    params: the network's parameters; empty for pixels.
    state: the network's batch-norm statistics; empty for pixels.
    loaded: features by split expression, so that files are read and
      checked once.
  """

  run: runs.Run
  source: Source
  name: str
  encode: Encode
  cache_key: dict[str, Any]
  params: hk.Params = dataclasses.field(default_factory=dict)
  state: hk.State = dataclasses.field(default_factory=dict)
  loaded: dict[str, Features] = dataclasses.field(default_factory=dict)

  @property
  def is_online(self) -> bool:
    """Whether this is the trained encoder, not a baseline."""
    return self.name == ONLINE

  def features(self, split: str) -> Features:
    """Returns the features of a whole split, cached in the workdir.

    Args:
      split: tfds split expression.

    Raises:
      UserError: if the split is unknown or the files cannot be written.
    """
    if split not in self.loaded:
      self.loaded[split] = self._load_or_compute(split)
    return self.loaded[split]

  def _load_or_compute(self, split: str) -> Features:
    data = self.run.config.data
    source = self.source
    count = source.num_examples(split)
    name = f"{self.name}_{splits_lib.file_name(source, split)}"
    return feature_cache.load_or_compute(
      files.scratch(self.run.workdir / "features") / name,
      {
        **self.cache_key,
        "data": source.location,
        "examples": source.contents_key(split),
        "label": source.dataset.label if source.num_classes else None,
        "image_shape": schema.image_shape(data),
        "eval_crop": data.eval_crop,
        "channels": data.channels,
      },
      count,
      lambda: self.feature_batches(split),
    )

  def feature_batches(self, split: str) -> Iterator[Features]:
    """Yields the features of a split as they are computed, without padding.

    All processes get the features of whole batches, and the primary process shows
    a bar with the time left.

    Args:
      split: tfds split expression.
    """
    count = self.source.num_examples(split)
    with console.images(
      count, f"Features of {split}", is_shown=processes.is_primary()
    ) as bar:
      for batch in features.extract(
        self.encode, self.eval_batches(split), count
      ):
        yield batch
        bar.update(len(batch.labels))

  def eval_batches(
    self, split: str, indices: range | None = None
  ) -> Iterator[dict[str, np.ndarray]]:
    """Returns this process' batches of centre crops of a split, in its order.

    Args:
      split: tfds split expression.
      indices: the examples to return; None for all.
    """
    return data_streams.eval_batches(
      self.run.config, self.source, split, indices=indices, spread=True
    )

  def random_crops(
    self, split: str, indices: range | np.ndarray, batch_size: int
  ) -> Iterator[dict[str, np.ndarray]]:
    """Returns this process' slices of endless shuffled batches to train on.

    Args:
      split: tfds split expression.
      indices: the examples to train on.
      batch_size: examples in a batch over all processes.
    """
    config = self.run.config
    data, region = config.data, config.evaluation.view
    return self.source.labelled_batches(
      split,
      indices,
      RandomCrop(schema.image_shape(data), region, data.channels),
      data,
      batch_size=batch_size,
      seed=config.seed,
      process=data_streams.this_process(),
    )


def online(run: runs.Run, source: Source, state: TrainState) -> EvalModel:
  """Returns the trained online network."""
  return _network(run, source, ONLINE, state.online_params, state.online_state)


def pixels(run: runs.Run, source: Source) -> EvalModel:
  """Returns the baseline whose features are the images themselves."""
  return EvalModel(run, source, PIXELS, features.flatten, {"network": PIXELS})


def untrained(run: runs.Run, source: Source, split: str) -> EvalModel:
  """Returns the online network before training, calibrated on a split.

  See `features.calibrated_state` for the batch-norm statistics.
  """
  initial = run.initial_state()
  state = features.calibrated_state(
    build.build_network(run.config, run.num_classes),
    initial.online_params,
    initial.online_state,
    data_streams.eval_batches(
      run.config, source, split, features.CALIBRATION_BATCH_SIZE
    ),
  )
  return _network(run, source, RANDOM, initial.online_params, state)


def baseline_names(run: runs.Run) -> list[str]:
  """Returns the names of a run's baselines; pixels only for small images."""
  data = run.config.data
  if not run.config.evaluation.baselines:
    return []
  if math.prod(schema.image_shape(data)) * data.channels > _MAX_PIXEL_VALUES:
    return [RANDOM]
  return [PIXELS, RANDOM]


def _network(
  run: runs.Run,
  source: Source,
  name: str,
  params: hk.Params,
  state: hk.State,
) -> EvalModel:
  network = build.build_network(run.config, run.num_classes)
  cache_key = {
    "network": feature_cache.fingerprint((params, state)),
    "model": dataclasses.asdict(run.config.model),
    "precision": run.config.train.precision,
    "mean": run.config.data.mean,
    "std": run.config.data.std,
  }
  encode = make_encode(network, params, state)
  return EvalModel(run, source, name, encode, cache_key, params, state)
