"""Sweeps the weight decay. Without it, the paper's runs were unstable.

python launch/sweep.py --sweep=experiments/sweeps/weight_decay.py
"""

from byol_jax.sweeps import Point, Sweep

_PAPER = {
  1e-7: (72.1, 0.0),
  5e-7: (72.6, 0.0),
  1e-6: (72.5, 0.0),
  5e-6: (71.0, 0.3),
  1e-5: (69.6, 0.4),
}


def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      f"{decay:g}": Point(decay, {"optimizer.weight_decay": decay}, paper)
      for decay, paper in _PAPER.items()
    },
    title="Weight decay",
    axis="weight decay",
    scale="log",
    source="appendix G",
  )
