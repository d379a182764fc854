"""The writers of a run's metrics, by the names in `log.writers`."""

import contextlib
import pathlib
from collections.abc import Mapping

from byol_jax import errors
from byol_jax.config import convert, schema
from byol_jax.runtime import files, tracking, writers
from byol_jax.training import workdir_files
from byol_jax.training.runs import Run

TENSORBOARD = "tensorboard"
_KNOWN = (TENSORBOARD, *tracking.TRACKERS)
_RUN_ID = "run_id"  # The key in `trackers/NAME.json`.


def check(config: schema.Config) -> None:
  """Raises `UserError` if a writer is unknown or not installed."""
  for name in convert.names(config.log.writers):
    if name not in _KNOWN:
      raise errors.unknown_name("log.writers", name, _KNOWN)
    if name in tracking.TRACKERS:
      tracking.check_installed(name)


def open_writers(run: Run, start_step: int) -> list[writers.Writer]:
  """Returns `metrics.jsonl` and the writers that `log.writers` names.

  Args:
    run: the run.
    start_step: the step that training resumes from, 0 at its start.

  Raises:
    UserError: a file cannot be written.
  """
  path = run.workdir / workdir_files.METRICS_FILE
  return [
    writers.JsonlWriter(path, start_step),
    *(
      _open(run, name, start_step)
      for name in convert.names(run.config.log.writers)
    ),
  ]


def conclude(
  run: Run,
  step: int,
  results: Mapping[str, float],
  pictures: Mapping[str, pathlib.Path],
) -> None:
  """Hands the results of a run that has ended to the writers of `log.writers`.

  Args:
    run: the run.
    step: of the evaluated encoder.
    results: values by name, as in `results.json`.
    pictures: PNGs by name.

  Raises:
    UserError: a file cannot be read or written.
  """
  with contextlib.ExitStack() as held:
    local = {
      name: held.enter_context(files.on_disk(path))
      for name, path in pictures.items()
    }
    for name in convert.names(run.config.log.writers):
      writer = _open(run, name, step)
      writer.conclude(step, results, local)
      writer.close()


def _open(
  run: Run, name: str, step: int
) -> writers.TensorBoardWriter | tracking.Tracking:
  """Opens a writer, after `metrics.jsonl` was cut at the step to go on from."""
  if name == TENSORBOARD:
    return writers.TensorBoardWriter(run.workdir / TENSORBOARD, step)
  folder = run.workdir / "trackers"
  path = folder / f"{name}.json"
  about = tracking.About(
    name=run.workdir.name,
    settings=convert.flatten(convert.to_json(run.config)),
    folder=files.scratch(folder),
    run_id=_read_id(path),
  )
  files.make_folder(about.folder)
  return tracking.Tracking(
    name,
    about,
    lambda run_id: workdir_files.write_json(path, {_RUN_ID: run_id}),
    writers.read_jsonl(run.workdir / workdir_files.METRICS_FILE),
  )


def _read_id(path: pathlib.Path) -> str:
  """Returns the id of the run in a tracker; "" if there is none."""
  if not path.exists():
    return ""
  try:
    return str(files.read_json(path).get(_RUN_ID, ""))
  except files.DamagedError as error:
    files.set_aside(path, error, "")
    return ""
