"""The frozen encoder as a function from images to features."""

import functools
from collections.abc import Callable

import haiku as hk
import numpy as np

from byol_jax.runtime import devices

Encode = Callable[[np.ndarray], np.ndarray]  # [b, H, W, C] to [b, D] float32.


def make_embed(
  network: hk.TransformedWithState,
) -> Callable[[tuple[hk.Params, hk.State], np.ndarray], np.ndarray]:
  """Returns a function that runs the encoder on all local devices.

  Batch norm uses its running statistics.

  Args:
    network: from `networks.make_network`.

  Returns:
    A function from parameters and batch-norm statistics, and images
    [b, H, W, C] in [0, 1], for any b, to features [b, D].
  """

  def embed(variables, images):
    outputs, _ = network.apply(*variables, images, is_training=False)
    return outputs.embedding

  return devices.pmap_examples(embed)


def make_outputs(
  network: hk.TransformedWithState,
) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
  """Returns a function like `make_embed`'s to features and projections [b, P]."""

  def outputs(variables, images):
    found, _ = network.apply(*variables, images, is_training=False)
    return found.embedding, found.projection

  return devices.pmap_examples(outputs)


def make_encode(
  network: hk.TransformedWithState, params: hk.Params, state: hk.State
) -> Encode:
  """Returns `make_embed(network)` for the given parameters and statistics."""
  return functools.partial(make_embed(network), (params, state))
