"""Sweeps tau at step 0, from 1 (the target never moves) to 0 (it is a copy).

    python launch/sweep.py --sweep=experiments/sweeps/target_decay.py

This is the paper's table 5a. As there, tau rises to 1 along a cosine; a tau of
0 stays constant.
"""

from byol_jax.sweeps import Point, Sweep


def get_sweep():
  # The axis is even in log(1 - tau); each end lies one step further out.
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      "1": Point(0, {"ema.base": 1.0}, (18.8, 0.7)),
      "0.999": Point(1, {"ema.base": 0.999}, (69.8, 0)),
      "0.99": Point(2, {"ema.base": 0.99}, (72.5, 0)),
      "0.9": Point(3, {"ema.base": 0.9}, (68.4, 0)),
      "0": Point(4, {"ema.base": 0.0, "ema.schedule": "constant"}, (0.3, 0)),
    },
    seeds=(0, 1),
    overrides={"evaluation.baselines": False},
    title="Target decay",
    axis="tau at step 0",
    scale="points",
    source="table 5a",
  )
