"""The frozen encoder as a function from images to features."""

from collections.abc import Callable

import haiku as hk
import numpy as np

from byol_jax.runtime import devices

Encode = Callable[[np.ndarray], np.ndarray]  # [b, S, S, C] to [b, D] float32.


def make_encode(
  network: hk.TransformedWithState, params: hk.Params, state: hk.State
) -> Encode:
  """Returns a function that runs the encoder on all local devices.

  Batch norm uses its running statistics.

  Args:
    network: from `networks.make_network`.
    params: the network's parameters.
    state: the network's batch-norm statistics.

  Returns:
    A function from images [b, S, S, C] in [0, 1], for any b, to features
    [b, D].
  """

  def embed(variables, images):
    outputs, _ = network.apply(*variables, images, is_training=False)
    return outputs.embedding

  mapped = devices.pmap_examples(embed)
  return lambda images: mapped((params, state), images)
