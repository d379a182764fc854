"""The results of evaluations: `results.json` and `evaluations.jsonl`."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NotRequired, TypedDict, get_type_hints

from byol_jax import errors
from byol_jax.data import registry
from byol_jax.evaluation import protocols
from byol_jax.evaluation.eval_model import (
  ONLINE,
  PIXELS,
  RANDOM,
  baseline_names,
)
from byol_jax.evaluation.feature_cache import WRITE_REMEDY
from byol_jax.runtime import files, processes, writers
from byol_jax.training import runs, workdir_files

FILE = "results.json"
_HEALTH = "health"  # An entry of `results.json` that is no result.

# The networks of results by model name, and the prefixes of the results' names.
# A trained encoder must beat both baselines to have learnt anything.
NETWORKS = {ONLINE: "online", PIXELS: "none", RANDOM: "online, untrained"}
_PREFIXES = {
  ONLINE: "",
  PIXELS: "baseline/pixels_",
  RANDOM: "baseline/random_",
}

# The columns of `registry.PAPER_TRANSFER`, by protocol.
_PAPER_COLUMNS = {"logistic": 0, "finetune": 1}


class Result(TypedDict):
  """A metric in `results.json`; details of its protocol follow as further keys.

  Attributes:
    value: the metric.
    protocol: a name in `protocols.PROTOCOLS`.
    metric: the name of the metric within the protocol.
    dataset: the tfds name of the data set.
    train_split: the split expression that classifiers are fitted to.
    split: the split expression that the value is about.
    examples: the number of examples in `split`.
    step: the encoder's updates; 0 for baselines.
    network: a value in `NETWORKS`.
    encoder: the file that the encoder comes from, if it is not from this run.
    started_from: the weights that this run began with, if there were any.
    interval: the 95% interval of the value over the choice of test examples.
    worst_class: the name of the class with the lowest value, and this value.
    paper: the value that the paper reports.
  """

  value: float
  protocol: str
  metric: str
  dataset: str
  train_split: str
  split: str
  examples: int
  step: int
  network: str
  encoder: NotRequired[str]
  started_from: NotRequired[str]
  interval: NotRequired[tuple[float, float]]
  worst_class: NotRequired[tuple[str, float]]
  paper: NotRequired[float]


Results = dict[str, Result]  # By name, such as linear/top1.


def read(workdir: pathlib.Path) -> Results:
  """Returns the results in a workdir's `results.json`, {} without one.

  A damaged file is kept as `results.json.damaged`, and its whole entries go on.

  Raises:
    UserError: if the file cannot be read.
  """
  entries = _read_entries(workdir)
  return {name: entries[name] for name in entries if name != _HEALTH}


def read_health(workdir: pathlib.Path) -> Mapping[str, Any]:
  """Returns what `add_health` wrote, {} without it; else like `read`."""
  return _read_entries(workdir).get(_HEALTH, {})


def _read_entries(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the results, and the health of the run; see `read`."""
  path = workdir / FILE
  if not path.exists():
    return {}
  whole: dict[str, Any] = {}
  try:
    found = files.read_json(path)
    whole = {
      name: entry
      for name, entry in found.items()
      if (isinstance(entry, dict) if name == _HEALTH else _is_result(entry))
    }
    if whole != found:
      damaged = ", ".join(sorted(found.keys() - whole.keys()))
      raise files.DamagedError(f"{damaged} are no results")
  except files.DamagedError as error:
    if processes.is_primary():
      files.set_aside(path, error, _to_text(whole) if whole else "")
  return whole


def _is_result(entry: Any) -> bool:
  """Returns whether an entry has what every result has."""
  hints = get_type_hints(Result)
  return isinstance(entry, dict) and all(
    isinstance(
      entry.get(key), (int, float) if hints[key] is float else hints[key]
    )
    for key in Result.__required_keys__
  )


def _to_text(entries: Mapping[str, Any]) -> str:
  return json.dumps(entries, indent=2) + "\n"


def add(workdir: pathlib.Path, new: Mapping[str, Result]) -> Results:
  """Adds results to `results.json` and returns its contents.

  Results with the same names are replaced, others kept, those too that another
  program wrote meanwhile.

  Raises:
    UserError: if the file cannot be written.
  """
  _add_entries(workdir, new)
  return read(workdir)


def add_health(workdir: pathlib.Path, health: Mapping[str, Any]) -> None:
  """Writes the health of a run as the entry `health`; raises like `add`."""
  _add_entries(workdir, {_HEALTH: health})


def _add_entries(workdir: pathlib.Path, new: Mapping[str, Any]) -> None:
  with _locked(workdir):
    _write(workdir / FILE, _to_text(_read_entries(workdir) | dict(new)))


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  """Makes other evaluations in a workdir wait before they read what they change.

  Such as one with --watch beside a training. Where a disk cannot lock folders, the
  last to write wins.
  """
  with contextlib.ExitStack() as held:
    if processes.is_primary():
      with contextlib.suppress(OSError):
        folder = os.open(workdir, os.O_RDONLY)
        held.callback(os.close, folder)  # It ends the lock, as a kill does.
        fcntl.flock(folder, fcntl.LOCK_EX)
    yield


def append_history(
  workdir: pathlib.Path, step: int, values: Mapping[str, float]
) -> None:
  """Adds a line to `evaluations.jsonl`.

  Args:
    workdir: holds the file.
    step: of the trained encoder.
    values: its metrics by name.

  Raises:
    UserError: if the file cannot be written.
  """
  path = workdir / workdir_files.EVALUATIONS_FILE
  if processes.is_primary():
    with _locked(workdir):
      rows = [*writers.read_undamaged(path), {"step": step, **values}]
      _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _write(path: pathlib.Path, text: str) -> None:
  """Replaces a whole file, in the primary process."""
  if not processes.is_primary():
    return
  with files.atomic_write(path, WRITE_REMEDY) as file:
    file.write_text(text)


def full_name(
  run: runs.Run, model_name: str, protocol: str, metric: str
) -> str:
  """Returns the name of a result.

  Such as `linear/top1`, `baseline/pixels_linear_top1` or, for another data set
  than the run's own, `cifar10/linear/top1`.
  """
  prefix, other = _PREFIXES[model_name], _other_dataset(run)
  name = f"{prefix}{protocol}{'_' if prefix else '/'}{metric}"
  return f"{other}/{name}" if other else name


def _other_dataset(run: runs.Run) -> str:
  """Returns the name of `evaluation.dataset`; of the root for a folder or a file."""
  options = run.config.evaluation
  if options.dataset not in ("folder", "arrays"):
    return options.dataset
  return os.path.basename(os.path.abspath(os.path.expanduser(options.root)))


def paper_value(run: runs.Run, protocol: str) -> float | None:
  """Returns the value that the paper reports, None if there is none to compare.

  The paper reports a ResNet-50, pretrained on ImageNet, on its transfer sets.
  """
  config = run.config
  values = registry.PAPER_TRANSFER.get(_other_dataset(run))
  column = _PAPER_COLUMNS.get(protocol)
  is_comparable = (
    config.data.dataset == "imagenet2012"
    and config.model.encoder.name == "ResNet50"
    and config.model.encoder.width == 1
  )
  if values is None or column is None or not is_comparable:
    return None
  return values[column]


def check_same_encoder(run: runs.Run, encoder: str = "") -> None:
  """Raises `UserError` if the workdir has results of another encoder.

  Results of two encoders in one `results.json` could not be distinguished.

  Args:
    run: the run in the workdir.
    encoder: the file that the encoder under evaluation comes from; "" if the
      run has trained it.
  """

  def check() -> None:
    for name, result in read(run.workdir).items():
      other = result.get("encoder", "")
      if result["network"] == NETWORKS[ONLINE] and other != encoder:
        raise errors.UserError(
          f"{run.workdir} has results of {other or 'a run'}, such as {name};"
          " choose another --workdir."
        )

  processes.broadcast_from_primary(check)


def check_same_folder(run: runs.Run, dataset: str) -> None:
  """Raises `UserError` if the workdir has results of another folder of that name.

  Results of two folders with the same last name have the same names. A folder that
  has moved is no other, nor is another path to it.

  Args:
    run: the run in the workdir.
    dataset: `tfds_name` of the data set to evaluate on, a path if it is a folder.
  """
  prefix = f"{_other_dataset(run)}/"

  def check() -> None:
    if run.config.evaluation.dataset != "folder":
      return
    for name, result in read(run.workdir).items():
      other = result["dataset"]
      if (
        name.startswith(prefix)
        and os.path.exists(other)
        and not os.path.samefile(other, dataset)
      ):
        raise errors.UserError(
          f"{run.workdir} has results of {other}, such as {name}, which those of"
          f" {dataset} would replace; rename one of the folders."
        )

  processes.broadcast_from_primary(check)


def is_complete(run: runs.Run, names: Iterable[str]) -> bool:
  """Returns whether `results.json` holds everything that `runner.evaluate` writes.

  Results of the trained encoder count if they are from the run's last step.

  Args:
    run: the run in the workdir.
    names: of the protocols, from `protocols.selected`.
  """
  results = read(run.workdir)

  def has(model_name: str, protocol: str) -> bool:
    prefix = full_name(run, model_name, protocol, "")
    return any(
      name.startswith(prefix)
      and (model_name != ONLINE or result["step"] == run.plan.total_steps)
      for name, result in results.items()
    )

  return all(
    has(model_name, protocol)
    for model_name in (ONLINE, *baseline_names(run))
    for protocol in names
    if protocols.applies_to(protocol, model_name)
  )
