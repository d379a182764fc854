"""Evaluation: frozen features in, named and explained figures out."""

import io
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from byol_jax import datasets, errors, train
from byol_jax.evaluation import features, knn, linear, retrieval
from byol_jax.evaluation.features import Features
from byol_jax.learner import TrainState

_FILE = "results.json"
_NEIGHBOURS_FILE = "neighbours.npz"  # What `report` draws them from.

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


def _retrieval(run: train.Run, bank: Features, queries: Features) -> Results:
  return retrieval.run(
    bank,
    queries,
    k=run.config.evaluation.retrieval.k,
    exclude_self=queries is bank,
    seed=run.config.seed,
  )


Protocol = Callable[[train.Run, Features, Features], Results]

PROTOCOLS: dict[str, Protocol] = {
  "knn": _knn,
  "linear": _linear,
  "retrieval": _retrieval,  # The only one that needs neither labels nor test.
}

# What is judged: the start of its results' names, and what they say of it. The
# trained encoder must beat both baselines to have learnt anything.
_ONLINE, _PIXELS, _RANDOM = "", "baseline/pixels_", "baseline/random_"
_NETWORKS = {
  _ONLINE: "online",
  _PIXELS: "none",
  _RANDOM: "online, untrained",
}


def _asked_for(run: train.Run) -> list[str]:
  asked = ",".join(run.config.evaluation.protocols)
  return [name.strip() for name in asked.split(",") if name.strip()]


def _judged_split(run: train.Run) -> str:
  """The test split; train itself where there is none, or nothing to learn."""
  dataset = run.source.dataset
  labelled = run.source.num_classes > 0
  return dataset.test if labelled and dataset.test else dataset.train


def protocol_names(run: train.Run) -> list[str]:
  """The protocols to run: those asked for, as far as the data set allows.

  The configuration may hold a tuple or names joined by commas. Without labels
  or a test split, only retrieval is left.

  Raises:
    UserError: if a name is unknown, none is left of those asked for, or there
      are fewer examples than neighbours.
  """
  names = asked = _asked_for(run)
  for name in asked:
    if name not in PROTOCOLS:
      raise errors.unknown_name("evaluation protocol", name, PROTOCOLS)
  if not asked:
    return []
  dataset, split = run.source.dataset, _judged_split(run)
  leave_one_out = split == dataset.train
  if leave_one_out:
    names = [name for name in asked if name == "retrieval"]
  if not names:
    missing = "test split" if run.source.num_classes else "labels"
    raise errors.UserError(
      f"{dataset.tfds_name} has no {missing} to evaluate"
      f" {' and '.join(asked)} with; set"
      " --config.evaluation.protocols=retrieval, or ='()' for none."
    )
  datasets.num_examples(run.source, split)
  size = datasets.num_examples(run.source, dataset.train)
  for name, most in {"knn": size, "retrieval": size - leave_one_out}.items():
    k = run.config.evaluation[name].k
    if name in names and k > most:
      raise errors.UserError(
        f"evaluation.{name}.k={k} is more than the {most} neighbours that split"
        f" {dataset.train!r} has to offer; lower it to {most} or less."
      )
  return names


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
      train.eval_batches(
        run, run.source.dataset.train, features.CALIBRATION_BATCH_SIZE
      ),
    )
    encoders[_PIXELS] = features.pixels
    encoders[_RANDOM] = features.encoder(
      network, untrained.online_params, settled
    )
  return encoders


def evaluate(run: train.Run, state: TrainState) -> dict[str, dict[str, Any]]:
  """Runs the configured protocols and writes `results.json`.

  Results of an earlier evaluation under the same names are replaced, others
  kept. Retrieval leaves a few neighbours in `neighbours.npz`, too.

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
  train_split, split = run.source.dataset.train, _judged_split(run)
  if dropped := set(_asked_for(run)) - set(names):
    logging.warning(
      "%s has no labels or no test split; not run: %s.",
      run.source.dataset.tfds_name,
      ", ".join(sorted(dropped)),
    )
  for prefix, encode in _encoders(run, state).items():
    bank = features.extract(encode, train.eval_batches(run, train_split))
    judged = bank
    if split != train_split:
      judged = features.extract(encode, train.eval_batches(run, split))
    for protocol in names:
      for metric, result in PROTOCOLS[protocol](run, bank, judged):
        results[_name(prefix, protocol, metric)] = {
          "value": result.pop("value"),
          "protocol": protocol,
          "split": split,
          "examples": len(judged.labels),
          "step": 0 if prefix else int(state.step),
          "network": _NETWORKS[prefix],
          **result,
        }
    if prefix == _ONLINE and "retrieval" in names:
      _write_neighbours(run, bank, judged)
    text = json.dumps(results, indent=2) + "\n"
    _write(run.workdir / _FILE, text.encode())
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


def _write_neighbours(
  run: train.Run, bank: Features, queries: Features
) -> None:
  found = retrieval.examples(
    bank,
    queries,
    k=run.config.evaluation.retrieval.k,
    exclude_self=queries is bank,
  )
  file = io.BytesIO()
  np.savez(
    file,
    query_split=_judged_split(run),
    bank_split=run.source.dataset.train,
    **found,
  )
  _write(run.workdir / _NEIGHBOURS_FILE, file.getvalue())


def _write(path: pathlib.Path, contents: bytes) -> None:
  """Replaces a file as a whole; `UserError` if it cannot be written."""
  if jax.process_index() != 0:
    return
  try:
    written = path.with_name(path.name + ".tmp")
    written.write_bytes(contents)
    written.replace(path)
  except OSError as error:
    raise errors.UserError(
      f"Cannot write {path}: {error.strerror}; free space there and run with"
      " --mode=evaluate: the checkpoint is kept."
    ) from error
