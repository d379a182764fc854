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
    sent=_read(path),
  )
  files.make_folder(about.folder)
  return tracking.Tracking(
    name,
    about,
    lambda sent: workdir_files.write_json(path, sent._asdict()),
    writers.read_jsonl(run.workdir / workdir_files.METRICS_FILE),
  )


def _read(path: pathlib.Path) -> tracking.Sent:
  """Returns what a tracker has, by `trackers/NAME.json`."""
  if not path.exists():
    return tracking.Sent()
  try:
    found = files.read_json(path)
    return tracking.Sent(str(found["run_id"]), int(found["step"]))
  except (files.DamagedError, LookupError, TypeError, ValueError) as error:
    files.set_aside(path, error, "")
    return tracking.Sent()
