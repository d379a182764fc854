"""Runs the configured protocols on a trained encoder and its baselines."""

from collections.abc import Callable, Iterator
from typing import cast

from absl import logging

from byol_jax.data.source import Source
from byol_jax.evaluation import eval_model, protocols, results
from byol_jax.evaluation import splits as splits_lib
from byol_jax.evaluation.eval_model import EvalModel
from byol_jax.evaluation.protocols import PROTOCOLS, Need
from byol_jax.evaluation.results import Result, Results
from byol_jax.evaluation.splits import Splits
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import processes
from byol_jax.training import runs, workdir_files


def evaluate(
  run: runs.Run,
  state: TrainState,
  on_result: Callable[[str, Result], None] = lambda name, result: None,
  encoder: str = "",
  selection: protocols.Selection | None = None,
) -> Results:
  """Runs the configured protocols and writes `results.json`.

  Each protocol's results are written when it ends. Results of an earlier
  evaluation under the same names are replaced, others kept. The trained
  encoder's values are also added to `evaluations.jsonl`, one line per call.

  Args:
    run: from `runs.prepare`.
    state: the trained state; its online network is evaluated.
    on_result: a function that is called with each result as soon as it is known;
      all of them may take hours.
    encoder: the file that the state comes from, if it is not from this run.
    selection: from `protocols.selected`, which is called if it is None.

  Returns:
    The metrics in `results.json`, by names such as `knn/top1`, `linear/top1`,
    `baseline/pixels_linear_top1`.

  Raises:
    UserError: as `results.check_same_encoder`, `results.check_same_folder` and
      `protocols.selected`, or if the results cannot be written.
  """
  results.check_same_encoder(run, encoder)
  # The primary process prepares the data set for all.
  selection = selection or processes.primary_first(
    lambda: protocols.selected(run)
  )
  names, source, splits = selection
  results.check_same_folder(run, source.dataset.tfds_name)
  found = results.read(run.workdir)
  if splits is None:
    return found
  _warn_of_dropped(run, selection)
  if processes.is_primary():
    workdir_files.add_class_names(
      run.workdir, source.dataset.tfds_name, source.class_names
    )
  new: Results = {}
  for model in _models(run, source, state, splits.train):
    if any(Need.LABELS in PROTOCOLS[name].needs for name in names):
      splits_lib.check_labels(model, splits)
    for protocol in names:
      if not protocols.applies_to(protocol, model.name):
        continue
      step = int(state.step) if model.is_online else 0
      for name, result in _run(model, splits, protocol, step, encoder):
        new[name] = result
        on_result(name, result)
      found = results.add(run.workdir, new)
    if model.is_online:
      _append_history(run, int(state.step), found)
  return found


def _append_history(run: runs.Run, step: int, found: Results) -> None:
  """Adds the trained encoder's values at a step to `evaluations.jsonl`."""
  values = {
    name: result["value"]
    for name, result in found.items()
    if result["network"] == results.NETWORKS[eval_model.ONLINE]
    and result["step"] == step
  }
  results.append_history(run.workdir, step, values)


def _warn_of_dropped(run: runs.Run, selection: protocols.Selection) -> None:
  """Logs the configured protocols that the data set does not allow."""
  if dropped := set(protocols.configured(run)) - set(selection.names):
    logging.warning(
      "%s has no labels or no test split; not run: %s.",
      selection.source.dataset.tfds_name,
      ", ".join(sorted(dropped)),
    )


def _models(
  run: runs.Run, source: Source, state: TrainState, split: str
) -> Iterator[EvalModel]:
  """Yields the trained encoder, then its baselines."""
  yield eval_model.online(run, source, state)
  for name in eval_model.baseline_names(run):
    if name == eval_model.PIXELS:
      yield eval_model.pixels(run, source)
    else:
      yield eval_model.untrained(run, source, split)


def _run(
  model: EvalModel, splits: Splits, protocol: str, step: int, encoder: str
) -> Iterator[tuple[str, Result]]:
  """Runs one protocol on one model; yields full names and results."""
  run, source = model.run, model.source
  for metric, details in PROTOCOLS[protocol].run(model, splits):
    result = {
      "value": details.pop("value"),
      "protocol": protocol,
      "metric": metric,
      "dataset": source.dataset.tfds_name,
      "train_split": splits.train,
      "split": splits.evaluated,
      "examples": source.num_examples(splits.evaluated),
      "step": step,
      "network": results.NETWORKS[model.name],
    }
    if encoder and model.is_online:
      result["encoder"] = encoder
    elif model.is_online and run.config.model.encoder.init_from:
      result["started_from"] = run.config.model.encoder.init_from
    result |= details
    paper = results.paper_value(run, protocol)
    if paper is not None and model.is_online and not encoder:
      result["paper"] = paper
    name = results.full_name(run, model.name, protocol, metric)
    yield name, cast(Result, result)
