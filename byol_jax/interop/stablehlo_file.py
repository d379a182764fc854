"""The encoder as a compiled-for-anything program, which needs only JAX."""

import haiku as hk
import jax
import jax.numpy as jnp
from jax import export

from byol_jax.config import schema
from byol_jax.interop.encoder import Variables
from byol_jax.runtime import platforms

# Those that `jax.export` compiles for.
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def serialized(
  network: hk.TransformedWithState,
  variables: Variables,
  data: schema.DataConfig,
) -> bytes:
  """Returns a program from images as bytes to features, for `jax.export`.

  It maps [B, H, W, C] uint8 to [B, D] float32 for any B, normalises the images and
  holds the parameters. All platforms get the plain form of each operation.

  Args:
    network: from `networks.make_encoder`.
    variables: its parameters and batch-norm statistics.
    data: says what H, W and C are.
  """

  def encode(images: jax.Array) -> jax.Array:
    x = images.astype(jnp.float32) / 255
    return network.apply(*variables, x, is_training=False)[0].embedding

  (batch,) = export.symbolic_shape("batch")
  shape = (batch, *schema.image_shape(data), data.channels)
  with platforms.assume("any"):
    program = export.export(jax.jit(encode), platforms=_PLATFORMS)(
      jax.ShapeDtypeStruct(shape, jnp.uint8)
    )
  return bytes(program.serialize())
