"""Sweeps the augmentations: each point leaves out some of them.

    python launch/sweep.py --sweep=experiments/sweeps/augmentations.py

This is the paper's ablation, on the smallest data set similar to ImageNet.
"""

from byol_jax.sweeps import Point, Sweep

_VIEWS = ("augment.view1", "augment.view2")


def _without(*names):
  """Returns overrides that disable augmentations, by name, in both views."""
  return {f"{view}.{name}": 0.0 for view in _VIEWS for name in names}


def get_sweep():
  blur = ("blur_prob", "solarize_prob")
  colour = ("jitter_prob", "grayscale_prob")
  settings = {
    "all": ((), (72.5, 0)),
    "no flip": (("flip_prob",), (71.9, 0)),
    "no blur": (("blur_prob",), (71.2, 0)),
    "no gray": (("grayscale_prob",), (70.3, 0)),
    "no jitter": (("jitter_prob",), (71.8, 0)),
    "no colour": (colour, (63.4, 0.7)),
    "crop and blur": (("flip_prob", "solarize_prob", *colour), (61.1, 0.3)),
    "crop and flip": ((*blur, *colour), (60.1, 0.3)),
    "crop": (("flip_prob", *blur, *colour), (59.4, 0.3)),
  }
  return Sweep(
    experiment="experiments/imagenette.py",
    points={
      name: Point(x, _without(*left_out), paper)
      for x, (name, (left_out, paper)) in enumerate(settings.items())
    },
    title="Augmentations",
    axis="what is left",
    scale="points",
    source="ablation of augmentations",
  )
