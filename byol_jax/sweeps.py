"""A sweep: runs of one experiment that differ in one setting, as data."""

import importlib.util
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax import errors

FILE = "sweep.json"  # In the folder of a sweep's workdirs.


class Point(NamedTuple):
  """One value of the swept setting.

  Attributes:
    x: the position on the axis of the sweep's picture.
    overrides: dotted configuration key to value.
    paper: the paper's top-1 on ImageNet in percent and half the range of its
      seeds, 0 where the paper gives no range; None if the paper did not try
      this value.
  """

  x: float
  overrides: Mapping[str, Any]
  paper: tuple[float, float] | None = None


class Sweep(NamedTuple):
  """The runs of a sweep and the labels of its picture.

  Attributes:
    experiment: the experiment file of every run.
    points: name to point, in the order in which they run and are listed.
    seeds: every point runs with every seed.
    overrides: dotted key to value, for all runs.
    metric: a name in `results.json`, which the picture shows.
    title: of the picture: the swept setting.
    axis: the label of the axis of `Point.x`.
    scale: of that axis: linear, log, points, which marks each point by its name, or
      names, which also joins no points, as they are in no order.
    source: the place of the paper's numbers, such as a table.
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


def named_points(
  settings: Mapping[str, tuple[Mapping[str, Any], tuple[float, float] | None]],
) -> dict[str, Point]:
  """Returns points that are in no order on an axis, for the scale `names`.

  Args:
    settings: name to the overrides and the paper's number of a `Point`.
  """
  return {
    name: Point(x, overrides, paper)
    for x, (name, (overrides, paper)) in enumerate(settings.items())
  }


class Member(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: `POINT/seed_N`, the workdir inside the sweep's folder.
    overrides: dotted key to value: the sweep's, the point's and the seed.
  """

  name: str
  overrides: dict[str, Any]


def load(path: str | pathlib.Path) -> Sweep:
  """Returns the sweep that `get_sweep()` of a Python file returns.

  Raises:
    UserError: there is no such file or function.
  """
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
  """Returns the runs of a sweep: all points with one seed, then the next."""
  return [
    Member(
      f"{name}/seed_{seed}",
      {**sweep.overrides, **point.overrides, "seed": seed},
    )
    for seed in sweep.seeds
    for name, point in sweep.points.items()
  ]


def flag(key: str, value: Any) -> str:
  """Returns an override as a flag of the command line."""
  return f"--config.{key}={value}"


def to_json(sweep: Sweep) -> str:
  """Returns a sweep as the text of `sweep.json`."""
  points = {name: point._asdict() for name, point in sweep.points.items()}
  return json.dumps(sweep._asdict() | {"points": points}, indent=2) + "\n"


def from_json(text: str) -> Sweep:
  """Returns the sweep that `to_json` wrote."""
  found = json.loads(text)
  points = {
    name: Point(
      point["x"], point["overrides"], point["paper"] and tuple(point["paper"])
    )
    for name, point in found["points"].items()
  }
  seeds = tuple(found["seeds"])
  return Sweep(**found | {"points": points, "seeds": seeds})
