"""Sweeps the batch size. The learning rate scales with the batch, as always.

    python launch/sweep.py --sweep=experiments/sweeps/batch_size.py

The paper's ablation accumulates gradients: batch norm sees fewer images, while
an update keeps its number of images. In this sweep an update has fewer images,
too, and the half-life of the target, counted in images, stays the same.
"""

from byol_jax.sweeps import Point, Sweep

_PAPER = {64: (59.7, 1.5), 128: (69.6, 0.5), 256: (71.8, 0.0), 512: (72.2, 0.0)}


def get_sweep():
  sizes = (16, 32, 64, 128, 256, 512)
  return Sweep(
    experiment="experiments/quickstart.py",
    points={
      str(size): Point(size, {"train.batch_size": size}, _PAPER.get(size))
      for size in sizes
    },
    # tau is 0.9 at the quickstart's own batch.
    overrides={"ema.scale_with_batch": True, "ema.base_batch_size": 64},
    title="Batch size",
    axis="images an update",
    scale="log",
    source="ablation of batch sizes",
  )
