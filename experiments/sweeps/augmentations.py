"""Sweeps the augmentations: each point leaves out or changes some of them.

    python launch/sweep.py --sweep=experiments/sweeps/augmentations.py

These are the rows of the paper's ablation, on the smallest data set similar to ImageNet.
With `--dry-run`, the command prints the flags of each.
"""

from byol_jax.augment.presets import PRESETS
from byol_jax.sweeps import Point, Sweep

# The paper's top-1 and half its range, by a name in `augment.presets.PRESETS`.
PAPER = {
  "asymmetric": (72.5, 0),
  "no_flip": (71.9, 0),
  "no_blur": (71.2, 0),
  "no_gray": (70.3, 0),
  "no_jitter": (71.8, 0),
  "no_colour": (63.4, 0.7),
  "view_2_no_blur": (72.4, 0),
  "view_2_no_solarize": (72.3, 0),
  "view_2_neither": (72.2, 0),
  "symmetric": (72.5, 0),
  "crop_and_colour": (70.7, 0),
  "crop_and_blur": (61.1, 0.3),
  "crop_and_flip": (60.1, 0.3),
  "crop": (59.4, 0.3),
}


def get_sweep():
  return Sweep(
    experiment="experiments/imagenette.py",
    points={
      name: Point(
        x,
        {f"augment.{key}": value for key, value in PRESETS[name].items()},
        paper,
      )
      for x, (name, paper) in enumerate(PAPER.items())
    },
    title="Augmentations",
    axis="what is left",
    scale="names",
    source="ablation of augmentations",
  )
