"""Two-dimensional convolution, computed in the way that suits the platform."""

import chex
import jax

from byol_jax.models import cpu_convolution
from byol_jax.runtime import devices


def conv(
  x: chex.Array,
  w: chex.Array,
  stride: int,
  padding: str | cpu_convolution.Pads = "SAME",
  platform: str | None = None,
) -> chex.Array:
  """Convolves images with a kernel, as `hk.Conv2D` without a bias does.

  GPUs and TPUs run `jax.lax.conv_general_dilated`. CPUs run the same sums in
  another order, see `cpu_convolution`.

  Args:
    x: [..., H, W, C].
    w: [rows, columns, C, D].
    stride: in both directions.
    padding: SAME, VALID, or what to add before and after rows and columns.
    platform: cpu, gpu or tpu; by default `devices.platform()`.

  Returns:
    [..., h, w, D].
  """
  pads: cpu_convolution.Pads
  if isinstance(padding, str):
    size = x.shape[-3:-1]
    pads = tuple(
      jax.lax.padtype_to_pads(size, w.shape[:2], (stride, stride), padding)
    )
  else:
    pads = padding
  on_cpu = (platform or devices.platform()) == "cpu"
  compute = cpu_convolution.conv if on_cpu else cpu_convolution.lax_conv
  y = compute(stride, pads, x.reshape(-1, *x.shape[-3:]), w)
  return y.reshape(*x.shape[:-3], *y.shape[1:])
