"""Images on the principal components of their features, as inline SVG."""

from collections.abc import Sequence

import numpy as np

from byol_jax.reporting import markup
from byol_jax.reporting.examples import Map

# Units of the picture, with room for a point at its edge.
_SIDE, _MARGIN = 400, 8
# Pixels a side of a picture that a point shows, and pictures in a row of the sprite:
# our choice, 300 pictures in about 100 kB.
_THUMBNAIL, _COLUMNS = 32, 20
# Classes with a colour of their own, those with the most images: more colours are
# not told apart.
_MOST_COLORS = 10

# Shows the picture of the point under the pointer, or of the one that was tapped.
_SCRIPT = """<script>
for (const map of document.querySelectorAll(".map")) {
  const tip = map.querySelector(".tip");
  const [sheet, name] = [tip.querySelector("img"), tip.querySelector("span")];
  const show = (event) => {
    const data = event.target.dataset;
    tip.hidden = data.name === undefined;
    if (tip.hidden) return;
    sheet.style.objectPosition = `${-data.x}px ${-data.y}px`;
    name.textContent = data.name;
    const box = map.getBoundingClientRect();
    const left = event.clientX - box.left, top = event.clientY - box.top;
    tip.style.left = `${Math.min(left + 12, box.width - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(top - tip.offsetHeight - 12, 0)}px`;
  };
  map.addEventListener("pointermove", show);
  map.addEventListener("pointerdown", show);
  map.addEventListener("pointerleave", () => { tip.hidden = true; });
}
</script>
"""


def draw(found: Map, class_names: Sequence[str]) -> str:
  """Returns the map, with a legend of the classes and a picture for each point.

  Args:
    found: the images.
    class_names: by label; empty without labels.
  """
  points = _placed(found.points)
  colors = _colors(found.labels)
  circles = []
  for i, (x, y) in enumerate(points):
    label = int(found.labels[i])
    name = class_names[label] if label >= 0 and class_names else "no label"
    row, column = divmod(i, _COLUMNS)
    circles.append(
      f'<circle class="{_kind(colors.get(label))}" cx="{x:.1f}" cy="{y:.1f}" r=5'
      f' data-name="{markup.text(name)}" data-x={column * _THUMBNAIL}'
      f" data-y={row * _THUMBNAIL} />"
    )
  sheet = markup.sprite(found.images, _THUMBNAIL, _COLUMNS)
  return (
    f'<div class=map><svg viewBox="0 0 {_SIDE} {_SIDE}" role=img'
    f' aria-label="Map of {len(points)} images">{"".join(circles)}</svg>'
    f'<div class=tip hidden><img alt="" width={_THUMBNAIL} height={_THUMBNAIL}'
    f' src="{sheet}"><span></span></div></div>\n'
    f"<div class=legend>{_legend(found.labels, colors, class_names)}</div>\n"
    f"{_SCRIPT}"
  )


def _placed(points: np.ndarray) -> np.ndarray:
  """Returns points [N, 2] in the units of the picture, both axes alike."""
  low, high = np.min(points, axis=0), np.max(points, axis=0)
  size = max(float(np.max(high - low)), 1e-12)
  placed = (points - (low + high) / 2) / size
  return _SIDE / 2 + placed * (_SIDE - 2 * _MARGIN)


def _colors(labels: np.ndarray) -> dict[int, int]:
  """Returns the colours of the classes with the most images, by label."""
  names, counts = np.unique(labels[labels >= 0], return_counts=True)
  largest = names[np.argsort(-counts, kind="stable")][:_MOST_COLORS]
  return {int(label): i for i, label in enumerate(sorted(largest))}


def _kind(color: int | None) -> str:
  return "point other" if color is None else f"point c{color}"


def _legend(
  labels: np.ndarray, colors: dict[int, int], class_names: Sequence[str]
) -> str:
  entries = [
    (f"c{color}", class_names[label]) for label, color in colors.items()
  ]
  others = len(np.setdiff1d(labels, list(colors)))
  if others:
    entries.append(("other", "other classes" if colors else "no labels"))
  return "".join(
    f'<span class=key><i class="{kind}"></i>{markup.text(name)}</span>'
    for kind, name in entries
  )
