"""The examples of an evaluation: to fit to, to validate on and to test on."""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from byol_jax import errors
from byol_jax.data.source import Source
from byol_jax.evaluation.metrics import METRICS
from byol_jax.training import data_streams, runs

if TYPE_CHECKING:
  from byol_jax.evaluation.eval_model import EvalModel


class Splits(NamedTuple):
  """The examples of an evaluation; no choice depends on the test split.

  Attributes:
    train: split expression of all examples that may be learnt from.
    fit: indices into `train` that classifiers are fitted to while
      hyper-parameters are being chosen.
    validation: indices into `train` that hyper-parameters are chosen on; they
      follow `fit`.
    test: split expression of the reported metrics; "" if the data set has no
      test split or no labels.
  """

  train: str
  fit: range
  validation: range
  test: str

  @property
  def num_train(self) -> int:
    """The number of examples in `train`."""
    return self.validation.stop

  @property
  def evaluated(self) -> str:
    """The split that results are about: `test`, or `train` without one."""
    return self.test or self.train


def open_source(run: runs.Run) -> Source:
  """Opens the data set to evaluate on: the run's own or the configured one.

  Raises:
    UserError: if the data set cannot be opened or the metric does not fit it.
  """
  options = run.config.evaluation
  source = run.source
  if options.dataset:
    source = data_streams.open_source(run.config, options.dataset, options.root)
  if options.metric:
    _check_metric(options.metric, source)
    source = source.with_metric(options.metric)
  return source


def _check_metric(metric: str, source: Source) -> None:
  """Raises `UserError` if a metric is unknown or does not fit a data set."""
  if metric not in METRICS:
    raise errors.unknown_name("evaluation.metric", metric, METRICS)
  if (metric == "map11") != source.is_multi_label:
    fitting = [m for m in METRICS if (m == "map11") == source.is_multi_label]
    raise errors.UserError(
      f"evaluation.metric={metric} does not fit {source.dataset.tfds_name}, where"
      f" an image has {'several classes' if source.is_multi_label else 'one class'};"
      f" use {' or '.join(fitting)}."
    )


def make_splits(run: runs.Run, source: Source) -> Splits:
  """Returns the examples to fit to, to validate on and to test on.

  Hyper-parameters are chosen on the data set's validation split, else on the
  last `evaluation.holdout` of the train split.

  Raises:
    UserError: if a split is unknown or too small, or train and test split have
      examples in common.
  """
  options = run.config.evaluation
  dataset = source.dataset
  train = options.train_split or dataset.train
  test = (options.test_split or dataset.test) if source.num_classes else ""
  size = _size(source, train, at_least=2)
  if test:
    _size(source, test, at_least=1)
  if dataset.validation and not options.train_split:
    # tfds keeps the order of a sum: the validation split comes last.
    train = f"{train}+{dataset.validation}"
    end = size + source.num_examples(dataset.validation)
    fit, validation = range(size), range(size, end)
  else:
    fit, validation = hold_out(size, options.holdout)
  shared = source.num_shared(train, test) if test else 0
  if shared:
    raise errors.UserError(
      f"{shared} examples of the test split {test!r} are also in the train"
      f" split {train!r}; choose evaluation.train_split and"
      " evaluation.test_split without common examples."
    )
  return Splits(train, fit, validation, test)


def describe(run: runs.Run, source: Source, splits: Splits | None) -> str:
  """Returns a line with the size of each split and what it is used for.

  Args:
    run: the run.
    source: the data set to evaluate on.
    splits: from `make_splits`; None if nothing is evaluated.
  """
  uses = [(run.source, run.source.dataset.pretrain, "pretraining")]
  if splits and splits.test:
    dataset = source.dataset
    train = run.config.evaluation.train_split or dataset.train
    if splits.train == train:
      held_out = len(splits.validation)
      uses.append((source, train, f"fitting, choosing on the last {held_out}"))
    else:
      uses.append((source, train, "fitting"))
      uses.append((source, dataset.validation, "choosing"))
    uses.append((source, splits.test, "scoring"))
  elif splits:
    uses.append((source, splits.train, "evaluating"))
  named = {
    part.split("[")[0].strip()
    for of, split, _ in uses
    if of.location == run.source.location
    for part in split.split("+")
  }
  for name in run.source.split_sizes():
    if name not in named:
      uses.append((run.source, name, "not used"))

  joined: dict[str, str] = {}
  for of, split, use in uses:
    is_other = of.location != run.source.location
    place = f"{of.dataset.tfds_name} " if is_other else ""
    what = f"{place}{split} ({of.num_examples(split)} images)"
    joined[what] = f"{joined[what]}, {use}" if what in joined else use
  return "; ".join(f"{what}: {use}" for what, use in joined.items()) + "."


def hold_out(size: int, fraction: float) -> tuple[range, range]:
  """Returns indices to fit to and, after them, indices to validate on.

  Args:
    size: the number of examples, at least 2.
    fraction: the fraction to validate on, in (0, 1).

  Returns:
    Two ranges that partition `range(size)`, neither of them empty.
  """
  start = size - min(max(round(fraction * size), 1), size - 1)
  return range(start), range(start, size)


def _size(source: Source, split: str, at_least: int) -> int:
  """Returns the size of a split; raises `UserError` if it is too small."""
  count = source.num_examples(split)
  if count < at_least:
    raise errors.UserError(
      f"split {split!r} of {source.dataset.tfds_name} has {count} examples and"
      f" at least {at_least} are needed; choose another evaluation.train_split"
      " or evaluation.test_split."
    )
  return count


def file_name(source: Source, split: str) -> str:
  """Returns a readable name for the files of a split, unique to that split."""
  name = source.dataset.tfds_name
  if os.path.isabs(name):  # A folder of images, which may lie elsewhere later.
    name = os.path.basename(name)
  readable = re.sub(r"\W+", "_", f"{name}_{split}")
  exact = f"{source.location} {split}".encode()
  return f"{readable.strip('_')}_{zlib.crc32(exact):08x}"


def check_labels(model: EvalModel, splits: Splits) -> None:
  """Raises `UserError` if an example to train or test on has no label."""
  for split in (splits.train, splits.test):
    missing = int(np.sum(model.features(split).labels < 0))
    if missing:
      raise errors.UserError(
        f"{missing} examples of split {split!r} of"
        f" {model.source.dataset.tfds_name} have no label; choose another"
        " evaluation.train_split or evaluation.test_split, or"
        " evaluation.protocols=retrieval."
      )
