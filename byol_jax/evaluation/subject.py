"""What is judged, and on which examples."""

import re
import zlib
from typing import Any, NamedTuple

import haiku as hk
import numpy as np

from byol_jax import errors
from byol_jax.data import input_pipeline, loading
from byol_jax.evaluation import features
from byol_jax.evaluation.features import Features
from byol_jax.learning.learner import TrainState
from byol_jax.training import runs

ONLINE, PIXELS, RANDOM = "online", "pixels", "random"


class Subject(NamedTuple):
  """An encoder, or what stands in for one, and the data it is judged on.

  Attributes:
    run: where it comes from; images are prepared as it prepared them.
    source: the data it is judged on.
    name: ONLINE, PIXELS or RANDOM.
    encode: from images to features.
    about: what distinguishes its features from any other's.
    made: those of splits that were asked for, so that files are checked once.
    params: of the network; None for pixels.
    state: batch-norm statistics; None for pixels.
  """

  run: runs.Run
  source: loading.Source
  name: str
  encode: features.Encode
  about: dict[str, Any]
  made: dict[str, Features]
  params: hk.Params | None = None
  state: hk.State | None = None


class Splits(NamedTuple):
  """The examples of an evaluation; the test split decides nothing.

  Attributes:
    train: split expression of all that may be learnt from.
    fit: places in it of what is learnt from while something is being chosen.
    validation: places in it of what is chosen by.
    test: split expression of what is reported; "" if there is none, or nothing
      is labelled.
  """

  train: str
  fit: range
  validation: range
  test: str


def open_source(run: runs.Run) -> loading.Source:
  """The data that a run is judged on: its own unless another is configured."""
  options = run.config.evaluation
  source = run.source
  if options.dataset:
    source = runs.load(run.config, options.dataset, options.root)
  if options.metric:
    described = source.dataset._replace(metric=options.metric)
    source = source._replace(dataset=described)
  return source


def make_splits(run: runs.Run, source: loading.Source) -> Splits:
  """The examples to learn from, to choose by and to report.

  Raises:
    UserError: if a split is unknown, or examples of the test split are learnt
      from.
  """
  options, dataset = run.config.evaluation, source.dataset
  learnt = options.train_split or dataset.train
  test = (options.test_split or dataset.test) if source.num_classes else ""
  size = _size(source, learnt, least=2)
  if test:
    _size(source, test, least=1)
  if dataset.validation and not options.train_split:
    held = loading.num_examples(source, dataset.validation)
    # tfds keeps the order of a sum: what is chosen by comes last.
    learnt, size = f"{learnt}+{dataset.validation}", size + held
  else:
    held = min(max(round(options.holdout * size), 1), size - 1)
  shared = input_pipeline.num_shared(source, learnt, test) if test else 0
  if shared:
    raise errors.UserError(
      f"{shared} examples of the test split {test!r} are in {learnt!r}, which"
      " is learnt and chosen from; set evaluation.train_split and"
      " evaluation.test_split apart."
    )
  return Splits(learnt, range(size - held), range(size - held, size), test)


def _size(source: loading.Source, split: str, least: int) -> int:
  """How many examples a split has; `UserError` if they are too few."""
  count = loading.num_examples(source, split)
  if count < least:
    raise errors.UserError(
      f"split {split!r} of {source.dataset.tfds_name} has {count} examples and"
      f" at least {least} are needed; choose another evaluation.train_split or"
      " evaluation.test_split."
    )
  return count


def pixels(run: runs.Run, source: loading.Source) -> Subject:
  """The images themselves."""
  return Subject(run, source, PIXELS, features.pixels, {"network": PIXELS}, {})


def online(run: runs.Run, source: loading.Source, state: TrainState) -> Subject:
  """What was trained."""
  return _network(run, source, ONLINE, state.online_params, state.online_state)


def untrained(run: runs.Run, source: loading.Source, split: str) -> Subject:
  """The online network before training, its statistics settled on a split."""
  initial = run.initial_state()
  settled = features.calibrated_state(
    runs.build_network(run.config, run.num_classes),
    initial.online_params,
    initial.online_state,
    runs.eval_batches(
      run.config, source, split, features.CALIBRATION_BATCH_SIZE
    ),
  )
  return _network(run, source, RANDOM, initial.online_params, settled)


def _network(
  run: runs.Run,
  source: loading.Source,
  name: str,
  params: hk.Params,
  state: hk.State,
) -> Subject:
  network = runs.build_network(run.config, run.num_classes)
  about = {
    "network": features.fingerprint((params, state)),
    "model": run.config.model.to_dict(),
    "precision": run.config.train.precision,
    "mean": run.config.data.mean,
    "std": run.config.data.std,
  }
  encode = features.encoder(network, params, state)
  return Subject(run, source, name, encode, about, {}, params, state)


def name_of(source: loading.Source, split: str) -> str:
  """A file's name for what belongs to a split, of no other one."""
  readable = re.sub(r"\W+", "_", f"{source.dataset.tfds_name}_{split}")
  exact = f"{source.builder.data_dir} {split}".encode()
  return f"{readable.strip('_')}_{zlib.crc32(exact):08x}"


def check_labels(subject: Subject, splits: Splits) -> None:
  """Raises `UserError` if something that is learnt from has no label."""
  for split in (splits.train, splits.test):
    missing = int(np.sum(features_of(subject, split).labels < 0))
    if missing:
      raise errors.UserError(
        f"{missing} examples of split {split!r} of"
        f" {subject.source.dataset.tfds_name} have no label; choose another"
        " evaluation.train_split or evaluation.test_split, or"
        " evaluation.protocols=retrieval."
      )


def features_of(subject: Subject, split: str) -> Features:
  """The features of a whole split, from the workdir if they are there."""
  if split in subject.made:
    return subject.made[split]
  config, source = subject.run.config, subject.source
  count = loading.num_examples(source, split)
  subject.made[split] = features.kept(
    subject.run.workdir
    / "features"
    / f"{subject.name}_{name_of(source, split)}",
    {
      **subject.about,
      "data": str(source.builder.data_dir),
      "examples": input_pipeline.identity(source, split),
      "label": source.dataset.label if source.num_classes else None,
      "image_size": config.data.image_size,
      "eval_crop": config.data.eval_crop,
      "channels": config.data.channels,
    },
    count,
    lambda: features.extract(
      subject.encode,
      runs.eval_batches(config, source, split, spread=True),
      count,
    ),
  )
  return subject.made[split]
