"""The page of a run: what is known, in the order in which people ask."""

import pathlib
from collections.abc import Sequence

from byol_jax import errors
from byol_jax.reporting import (
  charts,
  class_tables,
  comparison,
  embedding_map,
  examples,
  galleries,
  markup,
  page,
  summary,
  views,
)
from byol_jax.reporting.facts import Facts
from byol_jax.training import runs

_EVALUATE = "--mode=evaluate makes them."


def write(
  run: runs.Run, facts: Facts, others: Sequence[Facts] = ()
) -> pathlib.Path:
  """Writes `report.html` and `figures/views.png`; returns the path of the page.

  What is missing is named in its place.

  Args:
    run: the run, finished or not.
    facts: of its workdir.
    others: runs to stand beside it.

  Raises:
    UserError: a file cannot be written.
  """
  dataset = pathlib.PurePath(run.source.dataset.tfds_name).name
  title = f"{run.config.model.encoder.name} by BYOL on {dataset}"
  parts = [
    _verdict(run, facts),
    _metrics(facts),
    markup.section("Curves", charts.learning(facts)),
  ]
  if others:
    side_by_side = comparison.draw([facts, *others])
    parts.append(markup.section("Side by side", side_by_side))
  parts += [
    _views(run, facts),
    *_images(run),
    markup.section("Speed", charts.speed(facts)),
    _settings(facts),
    markup.section(
      "How it was made", markup.table(("", ""), summary.provenance(facts))
    ),
  ]
  return page.write(run.workdir, title, "".join(parts))


def _verdict(run: runs.Run, facts: Facts) -> str:
  parts = [
    f"<p>{markup.text(summary.progress(facts, run.plan.total_steps))}</p>"
  ]
  health = facts.health
  if not health:
    parts.append(markup.note("No verdict: results.json holds none."))
    return markup.section("Verdict", *parts)
  parts.append(
    f"<p class=verdict>{markup.text(health.get('verdict', '?'))}</p>"
  )
  for key, words in (("because", "Because: "), ("try", "Try: ")):
    if health.get(key):
      parts.append(f"<p>{words}{markup.text(summary.shown(health[key]))}</p>")
  if numbers := summary.health_numbers(facts):
    parts.append(markup.table(("number", "value"), numbers, "numbers"))
  return markup.section("Verdict", *parts)


def _metrics(facts: Facts) -> str:
  header, rows = summary.metrics(facts)
  parts = (
    [
      markup.table(header, rows, "numbers"),
      markup.note(summary.about_metrics(facts)),
    ]
    if rows
    else [markup.note(f"No metrics yet: {_EVALUATE}")]
  )
  if missing := summary.not_obtained(facts):
    parts.append(
      markup.note(f"Expected, but not evaluated: {', '.join(missing)}.")
    )
  return markup.section("Metrics beside baselines", *parts)


def _views(run: runs.Run, facts: Facts) -> str:
  title = "Views"
  if not facts.rows:
    return markup.section(
      title, markup.note("--mode=views draws them before training.")
    )
  try:
    shown = views.first(run)
  except errors.UserError as error:
    words = f"The images cannot be read: {error}"
    return markup.section(title, markup.note(words))
  views.write(run, shown)
  return markup.section(title, galleries.views(*shown))


def _images(run: runs.Run) -> list[str]:
  """Returns the sections on single images."""
  try:
    found = examples.gather(run)
  except errors.UserError as error:
    found = examples.Examples([])
    missing = f"The images cannot be read: {error}"
  else:
    missing = f"No features of such images are in the workdir: {_EVALUATE}"
  names = found.class_names
  classes = None
  if found.classes:
    classes = class_tables.draw(found.classes, names)
  elif found.map and not names:
    classes = markup.note("The images have no labels.")
  drawn = {
    "Nearest neighbours": found.neighbours
    and galleries.neighbours(found.neighbours),
    "Map of features": found.map and _map(found.map, names),
    "Classes": classes,
  }
  return [
    markup.section(title, part or markup.note(missing))
    for title, part in drawn.items()
  ]


def _map(found: examples.Map, names: Sequence[str]) -> str:
  across, up = found.explained
  words = (
    f"{len(found.points)} images of {found.split} on the first two principal"
    f" components of their normalised features, which hold {across:.0%} and"
    f" {up:.0%} of the variance. Point at one, or tap it, to see its image."
  )
  return markup.note(words) + embedding_map.draw(found, names)


def _settings(facts: Facts) -> str:
  title, rows = "Settings that are not the default", summary.settings(facts)
  if not rows:
    missing = "None is known: the workdir has no config.json."
    return markup.section(title, markup.note(missing))
  return markup.section(
    title,
    markup.note("The defaults are the paper's run of ResNet-50 on ImageNet."),
    f"<details><summary>{len(rows)} settings</summary>",
    markup.table(("key", "value", "default"), rows),
    "</details>",
  )
