"""Evaluation: frozen features in, named and explained figures out."""

import io
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

from byol_jax import errors
from byol_jax.data import loading, registry
from byol_jax.evaluation import features, retrieval
from byol_jax.evaluation import subject as subjects
from byol_jax.evaluation.protocols import (
  OF_NETWORKS,
  PROTOCOLS,
  UNLABELLED,
  bank_and_queries,
)
from byol_jax.evaluation.subject import Splits, Subject
from byol_jax.learning.learner import TrainState
from byol_jax.runtime import files, processes
from byol_jax.training import runs

_FILE = "results.json"
_HISTORY_FILE = "evaluations.jsonl"
# Numbers in an image above which they are no features to compare with: those of a
# data set would take more room than its files (48 pixels in colour).
_MANY_PIXELS = 8192
_NEIGHBOURS_FILE = "neighbours.npz"  # What `report` draws them from.

# The start of the results' names of what is judged, and what they say of it. The
# trained encoder must beat both baselines to have learnt anything.
_PREFIXES = {
  subjects.ONLINE: ("", "online"),
  subjects.PIXELS: ("baseline/pixels_", "none"),
  subjects.RANDOM: ("baseline/random_", "online, untrained"),
}


def _asked_for(run: runs.Run) -> list[str]:
  asked = ",".join(run.config.evaluation.protocols)
  return [name.strip() for name in asked.split(",") if name.strip()]


def protocol_names(run: runs.Run) -> list[str]:
  """The protocols to run: those asked for, as far as the data set allows.

  The configuration may hold a tuple or names joined by commas. Without labels
  or a test split, only those are left that need neither.

  Raises:
    UserError: if a name is unknown, none is left of those asked for, a split
      cannot be used, or there are fewer examples than neighbours.
  """
  names = asked = _asked_for(run)
  for name in asked:
    if name not in PROTOCOLS:
      raise errors.unknown_name("evaluation protocol", name, PROTOCOLS)
  if not asked:
    return []
  source = subjects.open_source(run)
  splits = subjects.make_splits(run, source)
  if not splits.test:
    names = [name for name in asked if name in UNLABELLED]
  if not names:
    missing = "test split" if source.num_classes else "labels"
    raise errors.UserError(
      f"{source.dataset.tfds_name} has no {missing} to evaluate"
      f" {' and '.join(asked)} with; set"
      " --config.evaluation.protocols=retrieval, or ='()' for none."
    )
  size = loading.num_examples(source, splits.train)
  for name, most in {
    "knn": size,
    "retrieval": size - (not splits.test),
  }.items():
    k = run.config.evaluation[name].k
    if name in names and k > most:
      raise errors.UserError(
        f"evaluation.{name}.k={k} is more than the {most} neighbours that split"
        f" {splits.train!r} has to offer; lower it to {most} or less."
      )
  return names


def check_origin(run: runs.Run, encoder: str = "") -> None:
  """Raises `UserError` if the workdir has figures of another encoder.

  They would stand beside those of this one; see `evaluate`.
  """

  def look():
    for name, result in read_results(run.workdir).items():
      judged = result.get("encoder", "")
      if result["network"] == "online" and judged != encoder:
        raise errors.UserError(
          f"{run.workdir} has figures of {judged or 'a run'}, such as {name};"
          " choose another --workdir."
        )

  processes.of_first(look)


def _judged(
  run: runs.Run, source: loading.Source, state: TrainState, split: str
) -> Iterator[Subject]:
  yield subjects.online(run, source, state)
  if subjects.PIXELS in _baselines(run):
    yield subjects.pixels(run, source)
  if subjects.RANDOM in _baselines(run):
    yield subjects.untrained(run, source, split)


def _baselines(run: runs.Run) -> list[str]:
  """What stands beside the encoder: pixels only of small images."""
  data = run.config.data
  if not run.config.evaluation.baselines:
    return []
  if data.image_size**2 * data.channels > _MANY_PIXELS:
    return [subjects.RANDOM]
  return [subjects.PIXELS, subjects.RANDOM]


def _applies(protocol: str, name: str) -> bool:
  return name != subjects.PIXELS or protocol not in OF_NETWORKS


def evaluate(
  run: runs.Run,
  state: TrainState,
  tell: Callable[[str, dict[str, Any]], None] = lambda name, result: None,
  encoder: str = "",
) -> dict[str, dict[str, Any]]:
  """Runs the configured protocols and writes `results.json`.

  Results of an earlier evaluation under the same names are replaced, others
  kept; each protocol's are written when it ends. What was found of the trained
  encoder is also added to `evaluations.jsonl`, a line a call. Retrieval leaves a
  few neighbours in `neighbours.npz`.

  Args:
    run: from `train.prepare`.
    state: what was trained; the online network is judged.
    tell: is called with each result as it comes, which may take hours.
    encoder: the file that it is from, if it is not of this run.

  Returns:
    Flat name to `{"value", "protocol", "split", "examples", "step", ...}`:
    `knn/top1`, `linear/top1`, `baseline/pixels_linear_top1`, ...

  Raises:
    UserError: see `check_origin` and `protocol_names`, or if the results cannot
      be written.
  """
  check_origin(run, encoder)
  names = protocol_names(run)
  results = read_results(run.workdir)
  if not names:
    return results
  source = subjects.open_source(run)
  if dropped := set(_asked_for(run)) - set(names):
    logging.warning(
      "%s has no labels or no test split; not run: %s.",
      source.dataset.tfds_name,
      ", ".join(sorted(dropped)),
    )
  splits = subjects.make_splits(run, source)
  judged_on = splits.test or splits.train
  for subject in _judged(run, source, state, splits.train):
    if set(names) - set(UNLABELLED):
      subjects.check_labels(subject, splits)
    prefix, network = _PREFIXES[subject.name]
    for protocol in names:
      if not _applies(protocol, subject.name):
        continue
      for metric, result in PROTOCOLS[protocol](subject, splits):
        name = _name(run, prefix, protocol, metric)
        results[name] = {
          "value": result.pop("value"),
          "protocol": protocol,
          "metric": metric,
          "dataset": source.dataset.tfds_name,
          "train_split": splits.train,
          "split": judged_on,
          "examples": loading.num_examples(source, judged_on),
          "step": 0 if prefix else int(state.step),
          "network": network,
          **({"encoder": encoder} if encoder and not prefix else {}),
          **result,
          **({} if encoder else _paper(run, subject, protocol)),
        }
        tell(name, results[name])
      # Another process may have added to them.
      results = read_results(run.workdir) | results
      text = json.dumps(results, indent=2) + "\n"
      _write(run.workdir / _FILE, text.encode())
    if not prefix:
      _remember(run, int(state.step), results)
    if not prefix and "retrieval" in names and source is run.source:
      _write_neighbours(subject, splits)
  return results


def _paper(run: runs.Run, subject: Subject, protocol: str) -> dict[str, float]:
  """What the paper reports of the same network, transferred from ImageNet."""
  config = run.config
  figures = registry.PAPER_TRANSFER.get(_other(run))
  column = {"logistic": 0, "finetune": 1}.get(protocol)
  is_theirs = (
    subject.name == subjects.ONLINE
    and config.data.dataset == "imagenet2012"
    and config.model.encoder.name == "ResNet50"
    and config.model.encoder.width == 1
  )
  if figures is None or column is None or not is_theirs:
    return {}
  return {"paper": figures[column]}


def _other(run: runs.Run) -> str:
  """The name of another data set that is judged on; of a folder, its own."""
  options = run.config.evaluation
  if options.dataset != "folder":
    return options.dataset
  return pathlib.Path(options.root).expanduser().absolute().name


def _name(run: runs.Run, prefix: str, protocol: str, metric: str) -> str:
  """`linear/top1`; `cifar10/linear/top1` if that is another data set."""
  other = _other(run)
  name = f"{prefix}{protocol}{'_' if prefix else '/'}{metric}"
  return f"{other}/{name}" if other else name


def is_complete(run: runs.Run) -> bool:
  """Whether `results.json` holds all that `evaluate` would write at the end."""
  judged = [subjects.ONLINE, *_baselines(run)]
  results, protocols = read_results(run.workdir), protocol_names(run)
  return all(
    any(
      name.startswith(_name(run, _PREFIXES[subject][0], protocol, ""))
      and (subject != subjects.ONLINE or result["step"] == run.plan.total_steps)
      for name, result in results.items()
    )
    for subject in judged
    for protocol in protocols
    if _applies(protocol, subject)
  )


def read_results(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The contents of a workdir's `results.json`, {} if there is none."""
  path = workdir / _FILE
  return json.loads(path.read_text()) if path.exists() else {}


def _write_neighbours(subject: Subject, splits: Splits) -> None:
  run = subject.run
  bank, queries = bank_and_queries(subject, splits)
  found = retrieval.examples(
    bank,
    queries,
    k=run.config.evaluation.retrieval.k,
    exclude_self=queries is bank,
  )
  file = io.BytesIO()
  np.savez(
    file,
    query_split=splits.test or splits.train,
    bank_split=splits.train,
    **found,
  )
  _write(run.workdir / _NEIGHBOURS_FILE, file.getvalue())


def _remember(
  run: runs.Run, step: int, results: dict[str, dict[str, Any]]
) -> None:
  """Adds the figures of a step to those of earlier ones."""
  path = run.workdir / _HISTORY_FILE
  found = {
    name: result["value"]
    for name, result in results.items()
    if result["network"] == "online" and result["step"] == step
  }
  before = path.read_bytes() if path.exists() else b""
  line = json.dumps({"step": step, **found}) + "\n"
  _write(path, before + line.encode())


def _write(path: pathlib.Path, contents: bytes) -> None:
  """Replaces a file as a whole; `UserError` if it cannot be written."""
  if not processes.is_first():
    return
  with files.replacing(path, features.WRITE_AGAIN) as file:
    file.write_bytes(contents)
