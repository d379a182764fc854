"""The registry of evaluation protocols, and the selection of those to run."""

import enum
from collections.abc import Callable
from typing import NamedTuple

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.data.source import Source
from byol_jax.evaluation import (
  eval_model,
  finetune,
  geometry,
  knn,
  linear,
  logistic,
  retrieval,
  semi_supervised,
)
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.eval_model import EvalModel
from byol_jax.evaluation.metrics import Measurements
from byol_jax.evaluation.splits import Splits
from byol_jax.training import runs


class Need(enum.Enum):
  """A thing without which a protocol cannot be run."""

  LABELS = "labels"  # Of every example.
  TEST_SPLIT = "test split"
  NETWORK = "network"  # Pixels, for one, cannot be fine-tuned.


class Protocol(NamedTuple):
  """An evaluation protocol.

  Attributes:
    run: yields the names, values and details of metrics.
    needs: where one of them is not met, the protocol is left out.
    check: raises `UserError` if the splits are too small for the options.
  """

  run: Callable[[EvalModel, Splits], Measurements]
  needs: frozenset[Need]
  check: Callable[[schema.EvaluationConfig, Splits], None] | None = None


class Selection(NamedTuple):
  """What an evaluation runs, and on what.

  Attributes:
    names: of the protocols, in their configured order.
    source: the data set to evaluate on.
    splits: None if no protocol is configured.
  """

  names: list[str]
  source: Source
  splits: Splits | None


_ANYTHING: frozenset[Need] = frozenset()
_LABELS = frozenset({Need.LABELS, Need.TEST_SPLIT})
_NETWORK = _LABELS | {Need.NETWORK}

PROTOCOLS: dict[str, Protocol] = {
  "knn": Protocol(knn.run, _LABELS, knn.check),
  "linear": Protocol(linear.run, _LABELS),
  "logistic": Protocol(logistic.run, _LABELS),
  "semi_supervised": Protocol(semi_supervised.run, _NETWORK),
  "finetune": Protocol(finetune.run, _NETWORK),
  "retrieval": Protocol(retrieval.run, _ANYTHING, retrieval.check),
  "geometry": Protocol(geometry.run, _ANYTHING),
}


def configured(run: runs.Run) -> list[str]:
  """Returns the configured names."""
  return convert.names(run.config.evaluation.protocols)


def selected(run: runs.Run) -> Selection:
  """Opens the data set and selects the configured protocols whose needs it meets.

  Raises:
    UserError: if a name is unknown, the data set meets the needs of none, a
      split cannot be used, or there are fewer examples than neighbours.
  """
  names = configured(run)
  for name in names:
    if name not in PROTOCOLS:
      raise errors.unknown_name("evaluation protocol", name, PROTOCOLS)
  if not names:
    return Selection([], run.source, None)
  source = splits_lib.open_source(run)
  splits = splits_lib.make_splits(run, source)
  missing = _missing(source, splits)
  usable = [name for name in names if not PROTOCOLS[name].needs & set(missing)]
  if not usable:
    raise errors.UserError(
      f"{source.dataset.tfds_name} has no {missing[0].value} to evaluate"
      f" {' and '.join(names)} with; set"
      " --config.evaluation.protocols=retrieval, or ='()' for none."
    )
  for name in usable:
    check = PROTOCOLS[name].check
    if check is not None:
      check(run.config.evaluation, splits)
  return Selection(usable, source, splits)


def _missing(source: Source, splits: Splits) -> list[Need]:
  """Returns the needs that a data set does not meet."""
  met = {
    Need.LABELS: bool(source.num_classes),
    Need.TEST_SPLIT: bool(splits.test),
  }
  return [need for need, is_met in met.items() if not is_met]


def applies_to(protocol: str, model_name: str) -> bool:
  """Returns whether a protocol can be run on the model of that name."""
  needs_network = Need.NETWORK in PROTOCOLS[protocol].needs
  return not needs_network or model_name != eval_model.PIXELS
