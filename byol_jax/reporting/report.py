"""The report of a run: its page, its card and its pictures."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from byol_jax import errors
from byol_jax.config import convert
from byol_jax.reporting import (
  card,
  comparison,
  curves,
  facts,
  markup,
  neighbours,
  page,
  projector,
  run_page,
  style,
)
from byol_jax.training import outputs, runs


class Figure(NamedTuple):
  """A picture of a run.

  Attributes:
    is_available: returns whether the workdir has the data to draw.
    write: draws it into the workdir.
  """

  is_available: Callable[[runs.Run], bool]
  write: Callable[[runs.Run], Any]


# By the name of the PNG in `figures/`, in the order in which they are drawn.
# The page draws `views`, for which it reads the images.
FIGURES: Mapping[str, Figure] = {
  "neighbours": Figure(neighbours.is_available, neighbours.write),
  "curves": Figure(curves.is_available, curves.write),
}


def write(run: runs.Run, others: Sequence[pathlib.Path] = ()) -> pathlib.Path:
  """Writes the page, the card and all pictures that a workdir has data for.

  Args:
    run: may still be training, or not have begun. The neighbours in the pictures
      are those that the retrieval protocol found, if it was run.
    others: workdirs of runs to stand beside it on the page.

  Returns:
    The path of the page.

  Raises:
    UserError: a workdir to compare is not there, or a file cannot be read or
      written.
  """
  own = facts.read(run.workdir, "this run" if others else run.workdir.name)
  path = run_page.write(run, own, [_read_other(folder) for folder in others])
  if own.rows or own.results:
    card.write(run, own)
  write_figures(run)
  if outputs.TENSORBOARD in convert.names(run.config.log.writers):
    projector.write(run)
  return path


def _read_other(folder: pathlib.Path) -> facts.Facts:
  if not folder.is_dir():
    raise errors.UserError(
      f"--compare={folder} is no folder; give workdirs of runs, separated by"
      " commas."
    )
  return facts.read(folder, str(folder))


def write_figures(run: runs.Run) -> None:
  """Draws the pictures of `FIGURES` that a workdir has data for."""
  for fig in FIGURES.values():
    if fig.is_available(run):
      fig.write(run)


def figures(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns the pictures that a workdir holds, by name."""
  paths = {
    name: style.figure_path(workdir, name) for name in ("views", *FIGURES)
  }
  return {name: path for name, path in paths.items() if path.exists()}


def write_together(
  folder: pathlib.Path, workdirs: Sequence[pathlib.Path]
) -> pathlib.Path:
  """Writes a page on which several runs stand side by side.

  Args:
    folder: holds the page.
    workdirs: of the runs, which may be empty or missing.

  Returns:
    The path of the page.

  Raises:
    UserError: a file cannot be read or written.
  """
  runs_of = [facts.read(path, _name(path, folder)) for path in workdirs]
  title = f"{len(runs_of)} runs in {folder.name}"
  body = markup.section("Side by side", comparison.draw(runs_of))
  return page.write(folder, title, body)


def _name(path: pathlib.Path, folder: pathlib.Path) -> str:
  """Returns the path of a run as short as it can be."""
  inside = path.is_relative_to(folder)
  return str(path.relative_to(folder) if inside else path)
