"""The report of a run: every picture for which the workdir has data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from byol_jax import errors
from byol_jax.reporting import curves, neighbours, views
from byol_jax.training import runs


class Figure(NamedTuple):
  """A picture of a run.

  Attributes:
    is_available: returns whether the workdir has the data to draw.
    write: draws it into the workdir.
  """

  is_available: Callable[[runs.Run], bool]
  write: Callable[[runs.Run], Any]


# By the name of the PNG in `figures/`, in the order in which they are drawn.
# The views need no metrics, but they are drawn only once a run has begun.
FIGURES: Mapping[str, Figure] = {
  "neighbours": Figure(neighbours.is_available, neighbours.write),
  "curves": Figure(curves.is_available, curves.write),
  "views": Figure(curves.is_available, views.write),
}


def write(run: runs.Run) -> None:
  """Draws all pictures of a run that its workdir has data for.

  Args:
    run: may still be training. The neighbours are those that the retrieval
      protocol found, if it was run.

  Raises:
    UserError: there is nothing to draw, or a picture cannot be written.
  """
  available = [fig for fig in FIGURES.values() if fig.is_available(run)]
  if not available:
    raise errors.UserError(
      f"{run.workdir} has neither metrics.jsonl nor neighbours.npz to draw;"
      " pretrain first."
    )
  for fig in available:
    fig.write(run)
