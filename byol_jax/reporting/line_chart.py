"""Curves over training steps as inline SVG, in the colours of the page."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from byol_jax.reporting import curves, markup
from byol_jax.reporting.facts import Row

# Units of the picture, which is shown about as wide on a phone; text is 12 high.
_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 352, 8, 166
_TICKS = 4
# Above which number a letter stands for a unit.
_UNITS = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
# Points of a curve: our choice, more than the picture has units.
_MOST_POINTS = 400

# Colours that the page's style defines; further curves repeat them, dashed.
COLORS = 10


class Series(NamedTuple):
  """A curve.

  Attributes:
    label: in the legend, which a chart with one curve does not need.
    steps: [N], increasing.
    values: [N], finite.
    color: tells it from the other curves of a chart, from 0.
  """

  label: str
  steps: np.ndarray
  values: np.ndarray
  color: int = 0

  @property
  def style(self) -> str:
    """Its classes in the page's style."""
    dashed = " again" if self.color >= COLORS else ""
    return f"c{self.color % COLORS}{dashed}"


def series(
  rows: Sequence[Row], name: str, label: str = "", color: int = 0
) -> Series | None:
  """Returns the curve of a metric, None if no row has a finite value of it."""
  # Null in the file, None here, stands for a value that was not finite.
  points = [(row["step"], row[name]) for row in rows if _is_number(row, name)]
  if not points:
    return None
  steps, values = np.array(points, np.float64).T
  return Series(label, steps, values, color)


def _is_number(row: Row, name: str) -> bool:
  value = row.get(name)
  return value is not None and math.isfinite(value)


def draw(
  title: str,
  curves_of: Sequence[Series],
  *,
  low: float | None = None,
  high: float | None = None,
  percent: bool = False,
  smooth: bool = True,
) -> str:
  """Returns a figure with curves over steps.

  Args:
    title: of the figure.
    curves_of: at least one curve.
    low: the lower end of the scale; by default that of the values.
    high: the upper end, likewise.
    percent: whether values are fractions to be written as percentages.
    smooth: whether curves with many points are smoothed, before their raw values.
  """
  values = np.concatenate([one.values for one in curves_of])
  low = float(np.min(values)) if low is None else low
  high = float(np.max(values)) if high is None else high
  if high <= low:  # A constant has some room on either side.
    room = abs(low) * 0.05 or 1.0
    low, high = low - room, high + room
  last = max(float(one.steps[-1]) for one in curves_of)
  scale = _Scale(last, low, high)
  parts = [_grid(scale, percent)]
  for one in curves_of:
    parts += _lines(scale, one, smooth)
  return (
    f"<figure class=chart><figcaption><b>{markup.text(title)}</b>"
    f"{_legend(curves_of, percent)}</figcaption>"
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img'
    f' aria-label="{markup.text(title)}">{"".join(parts)}</svg></figure>\n'
  )


class _Scale(NamedTuple):
  """Places steps in [0, last] and values in [low, high] on the picture."""

  last: float
  low: float
  high: float

  def x(self, step: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * step / max(self.last, 1)

  def y(self, value: float) -> float:
    part = (value - self.low) / (self.high - self.low)
    return _BOTTOM - (_BOTTOM - _TOP) * min(max(part, 0.0), 1.0)


def ticks(low: float, high: float) -> list[float]:
  """Returns round numbers in [low, high], two to six of them."""
  rough = (high - low) / _TICKS
  unit = 10.0 ** math.floor(math.log10(rough))
  step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [i * step for i in range(first, last + 1)]


def number(value: float, percent: bool = False) -> str:
  """Returns a value in few letters, such as 12.5k."""
  if percent:
    return f"{100 * value:.3g}%"
  if 0 < abs(value) < 1e-3:
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"
  for limit, unit, letter in _UNITS:
    if abs(value) >= limit:
      return f"{value / unit:.4g}{letter}"
  return f"{value:.4g}"


def _grid(scale: _Scale, percent: bool) -> str:
  """Returns the lines and numbers of both scales."""
  parts = []
  for value in ticks(scale.low, scale.high):
    y = scale.y(value)
    parts.append(
      f'<path class=grid d="M{_LEFT} {y:.1f}H{_RIGHT}"/><text x={_LEFT - 5}'
      f' y="{y + 4:.1f}" text-anchor=end>{number(value, percent)}</text>'
    )
  for step in ticks(0, max(scale.last, 1)):
    x = scale.x(step)
    anchor = "end" if x > _RIGHT - 12 else "middle"
    parts.append(
      f'<text x="{x:.1f}" y={_BOTTOM + 17} text-anchor={anchor}>'
      f"{number(step)}</text>"
    )
  return "".join(parts)


def _lines(scale: _Scale, one: Series, smooth: bool) -> list[str]:
  """Returns a curve, over its raw values if it is smoothed."""
  width = len(one.values) // 50 if smooth else 0  # As in `curves`.
  if len(one.values) == 1:
    x, y = scale.x(one.steps[0]), scale.y(one.values[0])
    return [f'<circle class="dot {one.style}" cx="{x:.1f}" cy="{y:.1f}" r=3 />']
  if not width:
    return [_line(scale, one.steps, one.values, f"line {one.style}")]
  smoothed = curves.moving_mean(one.values, width)
  return [
    _line(scale, one.steps, one.values, f"line raw {one.style}"),
    _line(scale, one.steps, smoothed, f"line {one.style}"),
  ]


def _line(
  scale: _Scale, steps: np.ndarray, values: np.ndarray, kind: str
) -> str:
  shown = np.unique(
    np.linspace(0, len(steps) - 1, min(len(steps), _MOST_POINTS)).astype(int)
  )
  points = " ".join(
    f"{scale.x(steps[i]):.1f},{scale.y(values[i]):.1f}" for i in shown
  )
  return f'<polyline class="{kind}" points="{points}"/>'


def _legend(curves_of: Sequence[Series], percent: bool) -> str:
  """Returns the last value of each curve, after its colour and its label."""
  parts = []
  for one in curves_of:
    mark = f'<i class="{one.style}"></i>' if len(curves_of) > 1 else ""
    last = number(one.values[-1], percent)
    parts.append(
      f"<span class=key>{mark}{markup.text(one.label)} {last}</span>"
    )
  return "".join(parts)
