"""What tau does during training.

    python launch/sweep.py --sweep=experiments/sweeps/target_schedule.py

The quickstart's base at its batch of 64, and what that base would be if it
were the paper's 0.996 at 4096 with the same half-life in images. The paper has
no table of it.
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
