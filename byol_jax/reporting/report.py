"""The pictures of a run: its curves, its views, its nearest neighbours."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from byol_jax import errors
from byol_jax.data import input_pipeline
from byol_jax.evaluation.features import share_a_class
from byol_jax.reporting import curves, neighbours, views
from byol_jax.runtime import files, writers
from byol_jax.training import runs

_SHOWN_IMAGES = 4

_SHOWN_NEIGHBOURS = 6


def write(run: runs.Run) -> None:
  """Draws the PNGs in `figures` of a workdir: curves, views and neighbours.

  Args:
    run: from `train.prepare`; it may still be training. The neighbours are
      those that the retrieval protocol left, if it was run.

  Raises:
    UserError: if there is nothing to draw, or it cannot be written.
  """
  rows = writers.read_jsonl(run.workdir / "metrics.jsonl")
  found = run.workdir / "neighbours.npz"
  if not rows and not found.exists():
    raise errors.UserError(
      f"{run.workdir} has neither metrics.jsonl nor neighbours.npz to draw;"
      " pretrain first."
    )
  with _figures(run) as folder:
    if found.exists():
      _draw_found(run, np.load(found), folder / "neighbours.png")
    if rows:
      steps_per_epoch = run.plan.num_examples / run.config.train.batch_size
      curves.draw(rows, folder / "curves.png", steps_per_epoch)
  if rows:
    write_views(run)


def write_views(run: runs.Run) -> pathlib.Path:
  """Draws `figures/views.png`, what the first step is given, and returns it."""
  made = runs.make_views(run.config)
  originals, batch = input_pipeline.first_views(
    run.source,
    made,
    runs.make_reading(run.config),
    count=_SHOWN_IMAGES,
    seed=run.config.seed,
  )
  finished = runs.finish_views(made, batch)
  with _figures(run) as folder:
    path = folder / "views.png"
    views.draw(
      originals, finished["view1"], finished["view2"], path, run.config.augment
    )
  return path


@contextlib.contextmanager
def _figures(run: runs.Run) -> Iterator[pathlib.Path]:
  """The folder of figures; failures to write there in one line."""
  folder = run.workdir / "figures"
  with files.report_write_errors(
    folder, "free space there and run with --mode=report"
  ):
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _draw_found(
  run: runs.Run, found: Mapping[str, np.ndarray], path: str | os.PathLike
) -> None:
  """Draws the neighbours that an evaluation found, from the images again."""
  places = found["neighbours"][:, :_SHOWN_NEIGHBOURS]
  queries, query_labels = _examples(
    run, str(found["query_split"]), found["queries"]
  )
  found_images, labels = _examples(run, str(found["bank_split"]), places)
  labelled = np.all(query_labels >= 0)
  agree = None
  if labelled:
    several = run.source.several_labels
    agree = share_a_class(labels, query_labels[:, None], several=several)
  neighbours.draw(queries, found_images, found["cosines"], path, agree)


def _examples(
  run: runs.Run, split: str, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Images [*places.shape, S, S, 3] and labels at some places of a split."""
  batches = runs.eval_batches(run.config, run.source, split)
  stream = itertools.chain.from_iterable(
    zip(batch["image"], batch["label"], strict=True) for batch in batches
  )
  wanted, order = np.unique(places, return_inverse=True)
  is_wanted = np.isin(np.arange(wanted[-1] + 1), wanted)
  images, labels = zip(*itertools.compress(stream, is_wanted), strict=True)
  order = order.reshape(places.shape)
  return np.stack(images)[order], np.stack(labels)[order]
