"""Changes of the two views by name: the rows of the paper's ablation.

Grill et al. 2020 (arXiv 2006.07733v3) compare them in section 5 and in the appendix on
augmentations. A change leaves all other keys of `augment` as they are.
"""

from collections.abc import Mapping, Sequence

_BOTH = ("view1", "view2")
_COLOUR = ("jitter", "grayscale")
_BLUR = ("blur", "solarize")


def _without(
  *operations: str, views: Sequence[str] = _BOTH
) -> Mapping[str, float]:
  """Returns the keys that disable operations, with their values."""
  return {f"{view}.{name}_prob": 0.0 for view in views for name in operations}


def _blurred(
  first: tuple[float, float], second: tuple[float, float]
) -> Mapping[str, float]:
  """Returns the keys of blur and solarisation of both views."""
  return {
    f"{view}.{name}_prob": probability
    for view, probabilities in zip(_BOTH, (first, second), strict=True)
    for name, probability in zip(_BLUR, probabilities, strict=True)
  }


# Keys below `augment` and their values, by the name that `augment.preset` takes.
PRESETS: dict[str, Mapping[str, float]] = {
  "asymmetric": _blurred((1.0, 0.0), (0.1, 0.2)),
  "no_flip": _without("flip"),
  "no_blur": _without("blur"),
  "no_gray": _without("grayscale"),
  "no_jitter": _without("jitter"),
  "no_colour": _without(*_COLOUR),
  "view_2_no_blur": _without("blur", views=_BOTH[1:]),
  "view_2_no_solarize": _without("solarize", views=_BOTH[1:]),
  "view_2_neither": _without(*_BLUR, views=_BOTH[1:]),
  "symmetric": _blurred((0.5, 0.2), (0.5, 0.2)),
  "crop_and_colour": _without("flip", *_BLUR),
  "crop_and_blur": _without("flip", "solarize", *_COLOUR),
  "crop_and_flip": _without(*_BLUR, *_COLOUR),
  "crop": _without("flip", *_BLUR, *_COLOUR),
}
