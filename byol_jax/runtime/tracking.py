"""Metrics for experiment trackers: Weights & Biases and MLflow.

Both are configured by their own environment variables, such as WANDB_MODE and
MLFLOW_TRACKING_URI. Their packages take seconds to import and are optional.
"""

import importlib.util
import logging
import os
import pathlib
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from byol_jax import errors
from byol_jax.runtime import console

_PROJECT = "byol_jax"  # Of runs whose project no environment variable names.
# How long the end of a training waits for a tracker. Our choice: a picture is sent in
# seconds, and a service that is away may stay so for hours.
_CLOSE_SECONDS = 30.0
_ALWAYS_LOGGED = "train/loss"  # By each step that is logged.
_PARAMS_PER_REQUEST = 100  # MLflow's limit.
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")  # What MLflow refuses in names.

Scalars = Mapping[str, float]


class About(NamedTuple):
  """What a tracker is told of a run.

  Attributes:
    name: of the run, for people.
    settings: dotted key to value.
    folder: on a disk, for files of the tracker.
    run_id: by which the tracker knows the run; empty for a new one.
  """

  name: str
  settings: Mapping[str, Any]
  folder: pathlib.Path
  run_id: str


class Tracker(Protocol):
  """A run of a tracker. All methods may wait, and raise anything.

  Attributes:
    run_id: by which the tracker knows the run.
    place: where people find it.
    last_step: the last one that the tracker has, -1 without any.
  """

  run_id: str
  place: str
  last_step: int

  def log(self, step: int, scalars: Scalars) -> None:
    """Adds scalars of a step; steps increase."""

  def conclude(
    self, step: int, results: Scalars, pictures: Mapping[str, pathlib.Path]
  ) -> None:
    """Adds the results of a run that has ended, and PNGs by name."""

  def close(self) -> None:
    """Sends what is left."""


class Wandb:
  """A run of Weights & Biases; see `Tracker`."""

  def __init__(self, about: About):
    import wandb

    self._image = wandb.Image
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", _PROJECT),
      name=about.name,
      id=about.run_id or None,
      resume="allow",
      config=dict(about.settings),
      dir=about.folder,
      # Our progress bar owns the terminal.
      settings=wandb.Settings(silent=True, console="off"),
    )
    self.run_id = self._run.id
    if self._run.offline:
      # A kill loses what was not written yet, so this start's files hold everything.
      own = pathlib.Path(self._run.settings.sync_dir)
      for old in own.parent.glob(f"offline-run-*-{self.run_id}"):
        if old != own:
          shutil.rmtree(old, ignore_errors=True)
    self.last_step = self._run.step - 1
    self.place = self._run.dir if self._run.offline else self._run.url

  def log(self, step: int, scalars: Scalars) -> None:  # noqa: D102
    self._run.log(dict(scalars), step=step, commit=True)

  def conclude(  # noqa: D102
    self, step: int, results: Scalars, pictures: Mapping[str, pathlib.Path]
  ) -> None:
    shown = {name: self._image(str(path)) for name, path in pictures.items()}
    if shown:  # Steps must increase.
      self._run.log(shown, step=max(step + 1, self._run.step), commit=True)
    self._run.summary.update(dict(results))

  def close(self) -> None:  # noqa: D102
    self._run.finish()


class Mlflow:
  """A run of MLflow; see `Tracker`. It is RUNNING until it is concluded."""

  def __init__(self, about: About):
    from mlflow import MlflowClient, entities

    # It would print each attempt to reach the service.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    self._entities = entities
    self._client = MlflowClient()
    self.run_id = about.run_id or self._new(about)
    history = self._client.get_metric_history(self.run_id, _ALWAYS_LOGGED)
    self.last_step = max((point.step for point in history), default=-1)
    self.place = f"{self._client.tracking_uri}, run {self.run_id}"

  def _new(self, about: About) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    found = self._client.get_experiment_by_name(name)
    experiment = (
      found.experiment_id if found else self._client.create_experiment(name)
    )
    run_id = self._client.create_run(
      experiment, run_name=about.name
    ).info.run_id
    params = [
      self._entities.Param(key, str(value))
      for key, value in about.settings.items()
    ]
    for i in range(0, len(params), _PARAMS_PER_REQUEST):
      part = params[i : i + _PARAMS_PER_REQUEST]
      self._client.log_batch(run_id, params=part)
    return run_id

  def log(self, step: int, scalars: Scalars) -> None:  # noqa: D102
    now = int(1000 * time.time())
    metrics = [
      self._entities.Metric(_NOT_IN_NAMES.sub("_", name), value, now, step)
      for name, value in scalars.items()
    ]
    self._client.log_batch(self.run_id, metrics=metrics)

  def conclude(  # noqa: D102
    self, step: int, results: Scalars, pictures: Mapping[str, pathlib.Path]
  ) -> None:
    self.log(step, results)
    for path in pictures.values():
      self._client.log_artifact(self.run_id, str(path), "figures")
    self._client.set_terminated(self.run_id)

  def close(self) -> None:  # noqa: D102
    pass


# By name in `log.writers`, which is also that of the package.
TRACKERS: Mapping[str, Callable[[About], Tracker]] = {
  "wandb": Wandb,
  "mlflow": Mlflow,
}


def check_installed(name: str) -> None:
  """Raises `UserError` unless the package of a tracker is installed."""
  spec = importlib.util.find_spec(name)
  if spec is None or spec.origin is None:  # A mere folder of that name.
    raise errors.UserError(
      f"log.writers={name} needs a package that is not installed; run"
      f" pip install 'byol_jax[{name}]'."
    )


class Tracking:
  """A writer that hands scalars to a tracker in a thread of its own.

  Training never waits for the tracker before its end. If the tracker fails, one line
  says so, and training goes on without it.

  Args:
    name: in `TRACKERS`.
    about: the run.
    save_id: keeps the id of a new run for the next start.
    earlier: the rows of `metrics.jsonl` so far. Those that the tracker lacks are sent
      first.
  """

  def __init__(
    self,
    name: str,
    about: About,
    save_id: Callable[[str], None],
    earlier: Sequence[Mapping[str, Any]],
  ):
    self._name = name
    self._tasks: queue.SimpleQueue[Callable[[Tracker], None] | None] = (
      queue.SimpleQueue()
    )
    for row in earlier:
      self.write(row["step"], {k: row[k] for k in row if k != "step"})
    self._thread = threading.Thread(
      target=self._work, args=(about, save_id), daemon=True
    )
    self._thread.start()

  def write(self, step: int, scalars: Mapping[str, float | None]) -> None:
    """Takes the scalars of a step, which are sent unless an earlier start did so."""
    values = {
      name: float("nan" if value is None else value)
      for name, value in scalars.items()
    }

    def log(tracker: Tracker) -> None:
      if step > tracker.last_step:
        tracker.log(step, values)

    self._tasks.put(log)

  def conclude(
    self, step: int, results: Scalars, pictures: Mapping[str, pathlib.Path]
  ) -> None:
    """Takes the results of a run; see `Tracker.conclude`."""
    self._tasks.put(lambda tracker: tracker.conclude(step, results, pictures))

  def flush(self) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Waits until the tracker has everything, for half a minute at most."""
    self._tasks.put(None)
    self._thread.join(_CLOSE_SECONDS)
    if self._thread.is_alive():
      self._note(f"did not answer for {_CLOSE_SECONDS:.0f} seconds")

  def _work(self, about: About, save_id: Callable[[str], None]) -> None:
    try:
      tracker = TRACKERS[self._name](about)
      if not about.run_id:
        save_id(tracker.run_id)
      console.say(f"{self._name}: {tracker.place}")
      while task := self._tasks.get():
        task(tracker)
      tracker.close()
    except Exception as error:  # Of any kind: training must not depend on it.
      reason = (str(error).splitlines() or [type(error).__name__])[0]
      self._note(f"failed ({reason})")

  def _note(self, what: str) -> None:
    console.say(
      f"Note: {self._name} {what}; the run goes on without it, and the next start"
      " sends what it lacks."
    )
