"""Sweeps the number of layers of the projector and of the predictor.

python launch/sweep.py --sweep=experiments/sweeps/head_depth.py
"""

from byol_jax.sweeps import Point, Sweep

# Top-1, by the layers of the projector and of the predictor.
_PAPER = {
  (1, 1): 61.9,
  (1, 2): 65.0,
  (1, 3): 65.7,
  (2, 1): 71.5,
  (2, 2): 72.5,
  (2, 3): 71.4,
  (3, 1): 71.4,
  (3, 2): 72.1,
  (3, 3): 72.1,
}


def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      f"{projector}x{predictor}": Point(
        x,
        {
          "model.projector.layers": projector,
          "model.predictor.layers": predictor,
        },
        (top1, 0.0),
      )
      for x, ((projector, predictor), top1) in enumerate(_PAPER.items())
    },
    title="Depth of the heads",
    axis="layers of projector x predictor",
    scale="points",
    source="appendix G",
  )
