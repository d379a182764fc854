"""Sweeps the schedule of tau.

    python launch/sweep.py --sweep=experiments/sweeps/target_schedule.py

The points `cosine` and `constant` start at the quickstart's tau, for its batch
of 64. `no average` keeps tau at 0. `half-life` scales the paper's 0.996 at 4096
images to the batch of 64, with the same half-life in images. The paper has no
such table.
"""

from byol_jax.sweeps import Point, Sweep


def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      "cosine": Point(0, {"ema.schedule": "cosine"}),
      "constant": Point(1, {"ema.schedule": "constant"}),
      "no average": Point(2, {"ema.base": 0.0, "ema.schedule": "constant"}),
      "half-life": Point(3, {"ema.base": 0.996, "ema.scale_with_batch": True}),
    },
    title="Schedule of the target's decay",
    axis="schedule",
    scale="points",
  )
