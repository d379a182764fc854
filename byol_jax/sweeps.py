"""Sweeps: several runs of an experiment that differ in one thing, as data."""

import importlib.util
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax import errors

FILE = "sweep.json"  # In the folder of a sweep's workdirs.


class Point(NamedTuple):
  """One setting that is tried.

  Attributes:
    x: where it stands on the figure's axis.
    overrides: dotted key of the configuration to value.
    paper: the paper's top-1 on ImageNet in percent, and half its seeds' range,
      0 where the paper gives none; None if the paper did not try it.
  """

  x: float
  overrides: Mapping[str, Any]
  paper: tuple[float, float] | None = None


class Sweep(NamedTuple):
  """What is tried, on what, and how it is shown.

  Attributes:
    experiment: the file of the experiment that each run is.
    points: name to point, in the order they are run and listed.
    seeds: each point is run with each.
    overrides: of all runs, dotted key to value.
    metric: the name in `results.json` that the figure shows.
    title: of the figure: what is swept.
    axis: what x is.
    scale: of the axis, linear, log, or points, each marked by its name.
    source: where the paper's figures stand.
  """

  experiment: str
  points: Mapping[str, Point]
  seeds: tuple[int, ...] = (0, 1, 2)
  overrides: Mapping[str, Any] = {}
  metric: str = "linear/top1"
  title: str = ""
  axis: str = ""
  scale: str = "linear"
  source: str = ""


class Member(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: of its workdir below the sweep's, `POINT/seed_N`.
    overrides: all of them, the seed too.
  """

  name: str
  overrides: dict[str, Any]


def load(path: str | pathlib.Path) -> Sweep:
  """What `get_sweep` of a file returns; `UserError` if there is none."""
  path = pathlib.Path(path)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if not path.is_file() or spec is None or spec.loader is None:
    raise errors.UserError(
      f"--sweep={path} is not a Python file; give one of experiments/sweeps."
    )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_sweep"):
    raise errors.UserError(
      f"--sweep={path} has no get_sweep(); see experiments/sweeps."
    )
  return module.get_sweep()


def members(sweep: Sweep) -> list[Member]:
  """The runs of a sweep: all points with the first seed, then with the next."""
  return [
    Member(
      f"{name}/seed_{seed}",
      {**sweep.overrides, **point.overrides, "seed": seed},
    )
    for seed in sweep.seeds
    for name, point in sweep.points.items()
  ]


def flag(key: str, value: Any) -> str:
  """An override as the command line takes it."""
  return f"--config.{key}={value}"


def to_json(sweep: Sweep) -> str:
  """All of a sweep, as text."""
  points = {name: point._asdict() for name, point in sweep.points.items()}
  return json.dumps(sweep._asdict() | {"points": points}, indent=2) + "\n"


def from_json(text: str) -> Sweep:
  """The inverse of `to_json`."""
  found = json.loads(text)
  points = {
    name: Point(
      point["x"], point["overrides"], point["paper"] and tuple(point["paper"])
    )
    for name, point in found["points"].items()
  }
  seeds = tuple(found["seeds"])
  return Sweep(**found | {"points": points, "seeds": seeds})
