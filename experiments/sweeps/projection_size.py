"""Sweeps the output size of the projector.

python launch/sweep.py --sweep=experiments/sweeps/projection_size.py
"""

from byol_jax.sweeps import Point, Sweep

_PAPER = {
  16: (69.9, 0.3),
  32: (71.3, 0.0),
  64: (72.2, 0.0),
  128: (72.5, 0.0),
  256: (72.5, 0.0),
  512: (72.6, 0.0),
}


def get_sweep():
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      str(size): Point(size, {"model.projector.output_size": size}, paper)
      for size, paper in _PAPER.items()
    },
    title="Projection",
    axis="size of the projection",
    scale="log",
    source="appendix G",
  )
