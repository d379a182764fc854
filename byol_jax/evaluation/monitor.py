"""Evaluates the encoder on a small sample while it trains."""

import numpy as np

from byol_jax import errors
from byol_jax.evaluation import features, geometry, knn, metrics, results
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.features import Features
from byol_jax.learning.learner import TrainState
from byol_jax.models.encode import make_embed
from byol_jax.training import build, data_streams, runs
from byol_jax.training.saver import BEST_BY

# The most examples that vote, and that are classified. Our choice.
_BANK, _QUERIES = 4096, 1024
# These examples are at most this fraction of the images trained on between two
# evaluations. Our choice: an image takes two networks forward and one backward on two
# views in training, about eight times as long as here.
_SHARE = 0.1

_PREFIX = "held_out/"  # Of the metrics' names.


class Monitor:
  """Evaluates states of a run on fixed examples of its train split.

  The examples to classify are the first that hyper-parameters are chosen on, and
  those that vote are the ones before them, the last that classifiers are fitted to
  (`splits.Splits`). The test split is not read. All processes call it for the same steps.

  Args:
    run: the run; its `evaluation.every_epochs` is above 0.

  Raises:
    UserError: if the data set cannot be split, or has no labels to compare.
  """

  def __init__(self, run: runs.Run):
    self._run = run
    config, plan = run.config, run.plan
    every = config.evaluation.every_epochs * plan.steps_per_epoch
    self._every_steps = max(round(every), 1)
    if config.checkpoint.keep_best and not run.source.num_classes:
      raise errors.UserError(
        "checkpoint.keep_best=True compares labels of neighbours, and"
        f" {run.source.dataset.tfds_name} has none; leave it at False."
      )
    self._splits = splits_lib.make_splits(run, run.source)
    images = _SHARE * self._every_steps * plan.batch_size
    part = min(images / (_BANK + _QUERIES), 1.0)
    fit, validation = self._splits.fit, self._splits.validation
    # Neighbours in the split, so that they are read at once.
    self._bank = fit[-max(round(part * _BANK), 2) :]
    self._queries = validation[: max(round(part * _QUERIES), 2)]
    # Once, as it compiles.
    self._embed = make_embed(build.build_network(config, run.num_classes))

  def is_due(self, step: int) -> bool:
    """Returns whether the state after a step is to be evaluated."""
    return step % self._every_steps == 0

  def __call__(self, state: TrainState) -> dict[str, float]:
    """Returns the metrics of a state, and adds them to `evaluations.jsonl`.

    Args:
      state: after a step.

    Returns:
      `held_out/knn`, the data set's metric, absent without labels, and the metrics
      of `geometry.measure` on the classified examples, such as `held_out/rank_me`.
    """
    both, count = self._features(state), len(self._bank)
    bank, queries = (
      both.select(rows)
      for rows in (range(count), range(count, len(both.labels)))
    )
    seed = self._run.config.seed
    found = {
      f"{_PREFIX}{name}": details["value"]
      for name, details in geometry.measure(queries, seed)
    }
    bank, queries = _labelled(bank), _labelled(queries)
    if (
      self._run.source.num_classes and len(bank.labels) and len(queries.labels)
    ):
      found[BEST_BY] = self._knn(bank, queries)
    results.append_history(self._run.workdir, int(state.step), found)
    return found

  def _features(self, state: TrainState) -> Features:
    indices = range(self._bank.start, self._queries.stop)
    variables = (state.online_params, state.online_state)
    batches = data_streams.eval_batches(
      self._run.config,
      self._run.source,
      self._splits.train,
      indices=indices,
      spread=True,
    )
    parts = features.extract(
      lambda images: self._embed(variables, images), batches, len(indices)
    )
    return Features(*map(np.concatenate, zip(*parts, strict=True)))

  def _knn(self, bank: Features, queries: Features) -> float:
    options = self._run.config.evaluation.knn
    votes = knn.votes(
      bank,
      queries.vectors,
      k=min(options.k, len(bank.labels)),
      temperature=options.temperature,
      num_classes=self._run.source.num_classes,
    )
    metric = self._run.source.dataset.metric
    return metrics.value(metric, queries.labels, votes)


def _labelled(found: Features) -> Features:
  """Returns the features of the examples whose label is known."""
  known = found.labels >= 0
  return found.select(np.flatnonzero(known if known.ndim == 1 else known[:, 0]))
