"""The accuracy of each class, and which classes are taken for which."""

from collections.abc import Sequence

import numpy as np

from byol_jax.reporting import markup
from byol_jax.reporting.examples import Classes

# Classes that are shown one by one, and whose confusion fits in a square table: our
# choices. Of more classes, the worst and the pairs that are confused most are shown.
_MOST_BARS, _MOST_CELLS = 40, 20
_WORST, _PAIRS = 20, 15
_MOST_LETTERS = 3  # Of a class above its column; longer names are turned.

_METRICS = {
  "top1": "accuracy",
  "mean_per_class": "accuracy",
  "map11": "average precision",
}


def draw(classes: Classes, class_names: Sequence[str]) -> str:
  """Returns a bar for each class, and the confusion of classes."""
  worst_first = np.argsort(classes.values, kind="stable")  # NaN comes last.
  worst_first = worst_first[~np.isnan(classes.values[worst_first])]
  shown = worst_first[:_WORST] if len(worst_first) > _MOST_BARS else worst_first
  parts = [
    markup.note(
      f"Each class' {_METRICS[classes.metric]} by kNN: {classes.examples:,} test"
      f" images, with {classes.searched:,} train images to search."
      + (
        f" The {len(shown)} worst of {len(worst_first)} classes."
        if len(shown) < len(worst_first)
        else " The worst class comes first."
      )
    ),
    _bars(classes, shown, class_names),
  ]
  if classes.confusion is not None:
    square = len(class_names) <= _MOST_CELLS
    draw_confusion = _square if square else _pairs
    parts.append(draw_confusion(classes.confusion, class_names))
  return "".join(parts)


def _bars(
  classes: Classes, shown: np.ndarray, class_names: Sequence[str]
) -> str:
  rows = "".join(
    f"<span>{markup.text(class_names[i])}</span>"
    f'<span class=bar><i style="width:{100 * classes.values[i]:.1f}%"></i></span>'
    f"<span>{100 * classes.values[i]:.1f}% of {classes.counts[i]}</span>"
    for i in shown
  )
  return f"<div class=bars>{rows}</div>\n"


def _square(confusion: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns all pairs: a row for each true class, a column for each guess."""
  totals = np.maximum(np.sum(confusion, axis=1), 1)
  longest = max(map(len, class_names))
  long = "long" if longest > _MOST_LETTERS else ""
  head = "".join(
    f"<th scope=col><span>{markup.text(name)}</span></th>"
    for name in class_names
  )
  rows = []
  for i, name in enumerate(class_names):
    cells = "".join(
      f'<td class="{"right" if i == j else "wrong"}"'
      f' style="--part:{confusion[i, j] / totals[i]:.3f}">'
      f"{confusion[i, j] or ''}</td>"
      for j in range(len(class_names))
    )
    rows.append(f"<tr><th scope=row>{markup.text(name)}</th>{cells}</tr>\n")
  return (
    "<h3>Confusion</h3>"
    + markup.note("Rows: the class of an image. Columns: the class by kNN.")
    + "<div class=scroll tabindex=0><table class=confusion><thead"
    f' class="{long}"><tr><td></td>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>\n"
  )


def _pairs(confusion: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns the pairs of classes that are confused most."""
  wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
  totals = np.sum(confusion, axis=1)
  order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
  pairs = [divmod(int(i), len(confusion)) for i in order]
  rows = [
    (class_names[i], class_names[j], f"{wrong[i, j]} of {totals[i]}")
    for i, j in pairs
    if wrong[i, j]
  ]
  if not rows:
    return markup.note("No image was taken for another class.")
  return "<h3>Confused most</h3>" + markup.table(
    ("class", "taken for", "images"), rows
  )
