"""Sweeps the augmentations: each point leaves out or changes some of them.

    python launch/sweep.py --sweep=experiments/sweeps/augmentations.py

These are the rows of the paper's ablation, on the smallest data set similar to ImageNet.
With `--dry-run`, the command prints the flags of each.
"""

from byol_jax.sweeps import Point, Sweep

_VIEWS = ("augment.view1", "augment.view2")


def _without(*names, views=_VIEWS):
  """Returns overrides that disable augmentations, by name."""
  return {f"{view}.{name}": 0.0 for view in views for name in names}


def get_sweep():
  blur = ("blur_prob", "solarize_prob")
  colour = ("jitter_prob", "grayscale_prob")
  second = _VIEWS[1:]
  equal = {"blur_prob": 0.5, "solarize_prob": 0.2}
  settings = {
    "all": ({}, (72.5, 0)),
    "no flip": (_without("flip_prob"), (71.9, 0)),
    "no blur": (_without("blur_prob"), (71.2, 0)),
    "no gray": (_without("grayscale_prob"), (70.3, 0)),
    "no jitter": (_without("jitter_prob"), (71.8, 0)),
    "no colour": (_without(*colour), (63.4, 0.7)),
    "view 2 no blur": (_without("blur_prob", views=second), (72.4, 0)),
    "view 2 no solarize": (_without("solarize_prob", views=second), (72.3, 0)),
    "view 2 neither": (_without(*blur, views=second), (72.2, 0)),
    "symmetric": (
      {f"{view}.{name}": p for view in _VIEWS for name, p in equal.items()},
      (72.5, 0),
    ),
    "crop and colour": (_without("flip_prob", *blur), (70.7, 0)),
    "crop and blur": (
      _without("flip_prob", "solarize_prob", *colour),
      (61.1, 0.3),
    ),
    "crop and flip": (_without(*blur, *colour), (60.1, 0.3)),
    "crop": (_without("flip_prob", *blur, *colour), (59.4, 0.3)),
  }
  return Sweep(
    experiment="experiments/imagenette.py",
    points={
      name: Point(x, overrides, paper)
      for x, (name, (overrides, paper)) in enumerate(settings.items())
    },
    title="Augmentations",
    axis="what is left",
    scale="points",
    source="ablation of augmentations",
  )
