"""Figures of a run, its curves, its views, what it holds for alike; of a sweep."""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import axes, figure, layout_engine, ticker

from byol_jax import errors, sweeps
from byol_jax.data import input_pipeline
from byol_jax.evaluation.features import share_a_class
from byol_jax.runtime import files, metrics
from byol_jax.training import runs

_COLOUR = "#1f5fa8"
_SECOND_COLOUR = "#d1742a"
_DOTS_PER_INCH = 100
_AGREE_COLOUR = "#2a8f4f"
_DIFFER_COLOUR = "#c0392b"
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
  rows = metrics.read_jsonl(run.workdir / "metrics.jsonl")
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
      draw_curves(rows, folder / "curves.png", steps_per_epoch)
  if rows:
    write_views(run)


def write_views(run: runs.Run) -> pathlib.Path:
  """Draws `figures/views.png`, what the first step is given, and returns it."""
  views = runs.make_views(run.config)
  originals, batch = input_pipeline.first_views(
    run.source,
    views,
    runs.make_reading(run.config),
    count=_SHOWN_IMAGES,
    seed=run.config.seed,
  )
  finished = runs.finish_views(views, batch)
  with _figures(run) as folder:
    path = folder / "views.png"
    draw_views(
      originals, finished["view1"], finished["view2"], path, run.config.augment
    )
  return path


@contextlib.contextmanager
def _figures(run: runs.Run) -> Iterator[pathlib.Path]:
  """The folder of figures; failures to write there in one line."""
  folder = run.workdir / "figures"
  with files.writing(folder, "free space there and run with --mode=report"):
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
  neighbours, labels = _examples(run, str(found["bank_split"]), places)
  labelled = np.all(query_labels >= 0)
  agree = None
  if labelled:
    several = run.source.is_multi_label
    agree = share_a_class(labels, query_labels[:, None], several=several)
  draw_neighbours(queries, neighbours, found["cosines"], path, agree)


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


def draw_curves(
  rows: Sequence[Mapping[str, float | None]],
  path: str | os.PathLike,
  steps_per_epoch: float | None = None,
) -> None:
  """Draws a pretraining run as four panels: loss, accuracy, tau, rate.

  Args:
    rows: of `metrics.jsonl`, by step; a row may lack any name but `step`.
    path: of the PNG, 1200 x 800 pixels.
    steps_per_epoch: adds a scale in epochs to the scale in steps.
  """
  layout = layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
  fig = figure.Figure(figsize=(12, 8), dpi=_DOTS_PER_INCH, layout=layout)
  (loss, accuracy), (tau, rate) = fig.subplots(2, 2)

  loss.set_title("BYOL loss (range 0 to 8; 0: both views predict each other)")
  _draw_curve(loss, rows, "train/repr_loss")
  loss.set_ylim(bottom=0)

  accuracy.set_title("Accuracy of the online classifier on training batches")
  _draw_curve(
    accuracy, rows, "train/top5_accuracy", color=_SECOND_COLOUR, label="top-5"
  )
  _draw_curve(accuracy, rows, "train/top1_accuracy", label="top-1")
  accuracy.set_ylim(0, 1)
  accuracy.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  if accuracy.lines:
    accuracy.legend(loc="best", frameon=False)

  tau.set_title("tau: share of the target network kept at each step")
  _draw_curve(tau, rows, "train/tau", smooth=False)
  tau.ticklabel_format(axis="y", useOffset=False)
  tau.set_ylim(top=1)

  rate.set_title("Learning rate")
  _draw_curve(rate, rows, "train/learning_rate", smooth=False)
  rate.set_ylim(bottom=0)

  for panel in (loss, accuracy, tau, rate):
    _finish_panel(panel, steps_per_epoch)
  fig.savefig(path)


def draw_views(
  originals: Sequence[np.ndarray],
  view1: np.ndarray,
  view2: np.ndarray,
  path: str | os.PathLike,
  settings: Mapping[str, Mapping[str, Any]],
) -> None:
  """Draws images beside their two views, with the settings of both below.

  Args:
    originals: at most 8 images [H, W, 3] of any sizes, uint8 or in [0, 1].
    view1: [N, S, S, 3] in [0, 1], one for each original.
    view2: likewise.
    path: of the PNG.
    settings: `view1` and `view2`, each mapping the same names to values.
  """
  shared, different = _settings_text(settings["view1"], settings["view2"])
  # Inches; a line of text at size 8 takes 0.135.
  images_height = 2.3 * len(originals) + 0.3
  lines = max(shared.count("\n"), different.count("\n")) + 1
  text_height = 0.135 * lines + 0.2
  fig = figure.Figure(
    figsize=(7, images_height + text_height), dpi=1.5 * _DOTS_PER_INCH
  )
  parts: Any = fig.subfigures(2, 1, height_ratios=(images_height, text_height))
  images, text = parts
  top = 1 - 0.3 / images_height
  grid = images.subplots(len(originals), 3, squeeze=False)
  images.subplots_adjust(0.02, 0, 0.98, top, wspace=0.03, hspace=0.03)
  triples = zip(originals, view1, view2, strict=True)
  for panels, triple in zip(grid, triples, strict=True):
    for panel, image in zip(panels, triple, strict=True):
      panel.imshow(_coloured(image))
      panel.set_axis_off()
  for x, title in ((0.18, "original"), (0.5, "view 1"), (0.82, "view 2")):
    images.text(x, top, title, ha="center", va="bottom", size=12)
  for x, block in ((0.03, shared), (0.5, different)):
    text.text(
      x, 1 - 0.1 / text_height, block, family="monospace", size=8, va="top"
    )
  fig.savefig(path)


def draw_neighbours(
  queries: np.ndarray,
  neighbours: np.ndarray,
  cosines: np.ndarray,
  path: str | os.PathLike,
  agree: np.ndarray | None = None,
) -> None:
  """Draws images beside their nearest neighbours, with the cosines above.

  Args:
    queries: [R, S, S, 3] in [0, 1].
    neighbours: [R, K, S, S, 3], best first.
    cosines: [R, at least K].
    path: of the PNG.
    agree: [R, K], whether a neighbour has its query's label: framed in green,
      otherwise in red; None where there are no labels.
  """
  rows, columns = neighbours.shape[:2]
  # Inches; the captions take 4.8.
  width, height = max(1.1 * (columns + 1), 4.8), 1.2 * rows + 0.4
  fig = figure.Figure(figsize=(width, height), dpi=1.5 * _DOTS_PER_INCH)
  grid = fig.subplots(rows, columns + 1, squeeze=False)
  fig.subplots_adjust(
    0.02, 0.01, 0.98, 1 - 0.55 / height, wspace=0.1, hspace=0.25
  )
  for row, panels in enumerate(grid):
    for panel in panels:
      panel.set(xticks=[], yticks=[])
      panel.spines[:].set_visible(False)
    panels[0].imshow(_coloured(queries[row]))
    for column, panel in enumerate(panels[1:]):
      panel.imshow(_coloured(neighbours[row, column]))
      panel.set_title(f"{cosines[row, column]:.3f}", size=8, pad=3)
      if agree is not None:
        color = _AGREE_COLOUR if agree[row, column] else _DIFFER_COLOUR
        panel.spines[:].set(visible=True, color=color, linewidth=2)
  captions = ["image", "nearest neighbours, by cosine"]
  if agree is not None:
    captions[1] += "; red: another class"
  for panel, caption in zip(grid[0, :2], captions, strict=True):
    x = panel.get_position().x0
    fig.text(x, 1 - 0.1 / height, caption, va="top", size=10)
  fig.savefig(path)


def draw_sweep(
  sweep: sweeps.Sweep,
  values: Mapping[str, Sequence[float]],
  path: str | os.PathLike,
) -> None:
  """Draws a sweep's figures against what was swept, the paper's beside them.

  Args:
    sweep: what was swept.
    values: name of a point to its figure for each seed, in [0, 1].
    path: of the PNG.
  """
  theirs = {
    name: point.paper
    for name, point in sweep.points.items()
    if point.paper is not None
  }
  panels = 2 if theirs else 1
  fig = figure.Figure(
    figsize=(6 * panels, 4.5),
    dpi=_DOTS_PER_INCH,
    layout=layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
  )
  ours, *other = fig.subplots(1, panels, squeeze=False)[0]
  mean_of = {
    name: float(np.mean(each)) for name, each in values.items() if each
  }
  ours.set_title(f"{sweep.title}: {sweep.metric}, here")
  ours.set_ylabel("mean and range of the seeds")
  _draw_points(
    ours,
    sweep,
    mean_of,
    {
      name: (mean - min(values[name]), max(values[name]) - mean)
      for name, mean in mean_of.items()
    },
    _COLOUR,
  )
  for panel in other:
    panel.set_title(f"The paper's top-1 on ImageNet ({sweep.source})")
    _draw_points(
      panel,
      sweep,
      {name: mean / 100 for name, (mean, _) in theirs.items()},
      {name: (half / 100, half / 100) for name, (_, half) in theirs.items()},
      _SECOND_COLOUR,
    )
  fig.savefig(path)


def _draw_points(
  panel: axes.Axes,
  sweep: sweeps.Sweep,
  means: Mapping[str, float],
  below_and_above: Mapping[str, tuple[float, float]],
  color: str,
) -> None:
  """Draws one curve of a sweep with what it ranges over."""
  panel.errorbar(
    [sweep.points[name].x for name in means],
    list(means.values()),
    yerr=np.array([below_and_above[name] for name in means]).T,
    color=color,
    marker="o",
    capsize=4,
  )
  places = [point.x for point in sweep.points.values()]
  if sweep.scale == "log":
    panel.set_xscale("log")
  if sweep.scale != "linear":
    panel.set_xticks(places, list(sweep.points))
    panel.xaxis.set_minor_locator(ticker.NullLocator())
  panel.set_xlabel(sweep.axis)
  panel.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  panel.grid(alpha=0.3)
  panel.spines[["top", "right"]].set_visible(False)


def _coloured(image: np.ndarray) -> np.ndarray:
  """[H, W, 3] of an image that may be grey."""
  return np.broadcast_to(image, (*image.shape[:2], 3))


def _draw_curve(
  panel: axes.Axes,
  rows: Sequence[Mapping[str, float | None]],
  name: str,
  smooth: bool = True,
  color: str = _COLOUR,
  label: str | None = None,
) -> None:
  """Draws one metric; a noisy one smoothed, with what was measured behind."""
  # Null in the file, None here, stands for what was not finite.
  points = [
    (row["step"], row[name]) for row in rows if row.get(name) is not None
  ]
  if not points:
    return
  steps, values = np.array(points, dtype=np.float64).T
  marker = "o" if len(points) == 1 else None
  width = len(points) // 50 if smooth else 0  # Of the window, on either side.
  if width:
    panel.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
    values = _moving_mean(values, width)
  panel.plot(steps, values, color=color, label=label, marker=marker)


def _moving_mean(values: np.ndarray, width: int) -> np.ndarray:
  """The mean over `width` neighbours on either side, fewer at the ends."""
  window = np.ones(2 * width + 1)
  total = np.convolve(values, window)[width:-width]
  return total / np.convolve(np.ones_like(values), window)[width:-width]


def _finish_panel(panel: axes.Axes, steps_per_epoch: float | None) -> None:
  """Scales, grid, and a word where there is nothing to see yet."""
  panel.set_xlabel("step")
  panel.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
  panel.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
  panel.grid(alpha=0.3)
  panel.spines[["top", "right"]].set_visible(False)
  panel.margins(x=0.02)
  panel.set_xlim(left=0)
  if not panel.lines:
    panel.text(
      0.5, 0.5, "nothing logged yet", ha="center", transform=panel.transAxes
    )
    panel.set(xticks=[], yticks=[])
  elif steps_per_epoch:

    def to_epoch(step: Any) -> Any:
      return step / steps_per_epoch

    def to_step(epoch: Any) -> Any:
      return epoch * steps_per_epoch

    epochs = panel.secondary_xaxis(-0.17, functions=(to_epoch, to_step))
    epochs.set_xlabel("epoch")


def _settings_text(
  view1: Mapping[str, Any], view2: Mapping[str, Any]
) -> tuple[str, str]:
  """Two tables: the settings both views share, and those that differ."""
  pairs = {name: (_text(view1[name]), _text(view2[name])) for name in view1}
  name_width = max(map(len, pairs), default=0) + 2
  shared = ["the same for both views"]
  different = [f"{'different':{name_width}}{'view 1':12}view 2"]
  for name, (first, second) in pairs.items():
    if first == second:
      shared.append(f"{name:{name_width}}{first}")
    else:
      different.append(f"{name:{name_width}}{first:12}{second}")
  return "\n".join(shared), "\n".join(different if different[1:] else ())


def _text(value: Any) -> str:
  """A setting as people write it: a range as `0.08 to 1`."""
  if isinstance(value, Sequence) and not isinstance(value, str):
    return " to ".join(map(_text, value))
  return f"{value:.3g}" if isinstance(value, float) else str(value)
