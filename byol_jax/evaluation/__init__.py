"""Evaluation: frozen features in, named and explained figures out."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from byol_jax import datasets, errors, input_pipeline, train
from byol_jax.evaluation import features, knn, linear
from byol_jax.evaluation.features import Features
from byol_jax.learner import TrainState

_FILE = "results.json"

Results = Iterator[tuple[str, dict[str, Any]]]


def _knn(run: train.Run, bank: Features, test: Features) -> Results:
  options = run.config.evaluation.knn
  return knn.run(
    bank,
    test,
    k=options.k,
    temperature=options.temperature,
    num_classes=run.num_classes,
  )


def _linear(run: train.Run, fitted_to: Features, test: Features) -> Results:
  options = run.config.evaluation.linear
  return linear.run(
    fitted_to,
    test,
    l2_range=options.l2_range,
    l2_count=options.l2_count,
    holdout=options.holdout,
    seed=run.config.seed,
  )


Protocol = Callable[[train.Run, Features, Features], Results]

PROTOCOLS: dict[str, Protocol] = {"knn": _knn, "linear": _linear}

# What is judged: the start of its results' names, and what they say of it. The
# trained encoder must beat both baselines to have learnt anything.
_ONLINE, _PIXELS, _RANDOM = "", "baseline/pixels_", "baseline/random_"
_NETWORKS = {
  _ONLINE: "online",
  _PIXELS: "none",
  _RANDOM: "online, untrained",
}


def protocol_names(run: train.Run) -> list[str]:
  """The protocols asked for; a tuple or names joined by commas.

  Raises:
    UserError: if a name is unknown, or the data set cannot be evaluated so.
  """
  asked = ",".join(run.config.evaluation.protocols)
  names = [name.strip() for name in asked.split(",") if name.strip()]
  for name in names:
    if name not in PROTOCOLS:
      raise errors.unknown_name("evaluation protocol", name, PROTOCOLS)
  if names and not run.source.num_classes:
    raise errors.UserError(
      f"{run.config.data.dataset} has no labels to evaluate with; set"
      " --config.evaluation.protocols='()'."
    )
  if names:
    size = datasets.num_examples(run.source, run.source.dataset.train)
    datasets.num_examples(run.source, run.source.dataset.test)
    k = run.config.evaluation.knn.k
    if "knn" in names and k > size:
      raise errors.UserError(
        f"evaluation.knn.k={k} is more than the {size} examples of split"
        f" {run.source.dataset.train!r}; lower it to {size} or less."
      )
  return names


def _batches(
  run: train.Run, split: str, batch_size: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
  return input_pipeline.eval_batches(
    run.source,
    split,
    batch_size=batch_size or run.config.evaluation.batch_size,
    image_size=run.config.data.image_size,
    crop=run.config.data.eval_crop,
  )


def _encoders(run: train.Run, state: TrainState) -> dict[str, features.Encode]:
  """What turns images into features, for each start of a result's name."""
  network = train.build_network(run.config, run.num_classes)
  encoders = {
    _ONLINE: features.encoder(network, state.online_params, state.online_state)
  }
  if run.config.evaluation.baselines:
    untrained = run.initial_state()
    settled = features.calibrated_state(
      network,
      untrained.online_params,
      untrained.online_state,
      _batches(run, run.source.dataset.train, features.CALIBRATION_BATCH_SIZE),
    )
    encoders[_PIXELS] = features.pixels
    encoders[_RANDOM] = features.encoder(
      network, untrained.online_params, settled
    )
  return encoders


def evaluate(run: train.Run, state: TrainState) -> dict[str, dict[str, Any]]:
  """Runs the configured protocols and writes `results.json`.

  Results of an earlier evaluation under the same names are replaced, others
  kept.

  Args:
    run: from `train.prepare`.
    state: what was trained; the online network is judged.

  Returns:
    Flat name to `{"value", "protocol", "split", "examples", "step", ...}`:
    `knn/top1`, `linear/top1`, `baseline/pixels_linear_top1`, ...

  Raises:
    UserError: see `protocol_names`, or if the results cannot be written.
  """
  names = protocol_names(run)
  results = read_results(run.workdir)
  if not names:
    return results
  dataset = run.source.dataset
  for prefix, encode in _encoders(run, state).items():
    fitted_to = features.extract(encode, _batches(run, dataset.train))
    test = features.extract(encode, _batches(run, dataset.test))
    for protocol in names:
      for metric, result in PROTOCOLS[protocol](run, fitted_to, test):
        results[_name(prefix, protocol, metric)] = {
          "value": result.pop("value"),
          "protocol": protocol,
          "split": dataset.test,
          "examples": len(test.labels),
          "step": 0 if prefix else int(state.step),
          "network": _NETWORKS[prefix],
          **result,
        }
    _write_results(run.workdir, results)
  return results


def _name(prefix: str, protocol: str, metric: str) -> str:
  return f"{prefix}{protocol}{'_' if prefix else '/'}{metric}"


def is_complete(run: train.Run) -> bool:
  """Whether `results.json` holds all that `evaluate` would write."""
  prefixes = _NETWORKS if run.config.evaluation.baselines else [_ONLINE]
  results = read_results(run.workdir)
  return all(
    any(name.startswith(_name(prefix, protocol, "")) for name in results)
    for prefix in prefixes
    for protocol in protocol_names(run)
  )


def read_results(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The contents of a workdir's `results.json`, {} if there is none."""
  path = workdir / _FILE
  return json.loads(path.read_text()) if path.exists() else {}


def _write_results(workdir: pathlib.Path, results: dict[str, Any]) -> None:
  if jax.process_index() != 0:
    return
  path = workdir / _FILE
  try:
    written = path.with_name(_FILE + ".tmp")
    written.write_text(json.dumps(results, indent=2) + "\n")
    written.replace(path)
  except OSError as error:
    raise errors.UserError(
      f"Cannot write {path}: {error.strerror}; free space there and run with"
      " --mode=evaluate: the checkpoint is kept."
    ) from error
