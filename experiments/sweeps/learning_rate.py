"""Sweeps the base learning rate, which is for a batch of 256 images.

python launch/sweep.py --sweep=experiments/sweeps/learning_rate.py
"""

from byol_jax.sweeps import Point, Sweep

_PAPER = {
  0.01: (34.8, 3.0),
  0.1: (65.0, 0.0),
  0.2: (71.7, 0.0),
  0.3: (72.5, 0.0),
  0.4: (72.3, 0.0),
  0.5: (71.5, 0.0),
  1.0: (69.4, 0.0),
}


def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      str(rate): Point(rate, {"optimizer.base_learning_rate": rate}, paper)
      for rate, paper in _PAPER.items()
    },
    title="Learning rate",
    axis="base learning rate",
    scale="log",
    source="appendix G",
  )
