"""The MLP that is the projector and, by default, the predictor."""

import functools

import chex
import haiku as hk
import jax

from byol_jax.models.batch_norm import Settings
from byol_jax.models.norms import NORMS


class MLP(hk.Module):
  """Linear, norm, ReLU; then linear without bias (paper, 3.2).

  With more layers, the first three repeat for each layer but the last; with one
  layer, only the last is left.
  """

  def __init__(
    self,
    num_layers: int,
    hidden_size: int,
    output_size: int,
    norm: str,
    bn_settings: Settings,
    name: str,
  ):
    super().__init__(name=name)
    self._num_layers = num_layers
    self._hidden_size = hidden_size
    self._output_size = output_size
    self._norm = functools.partial(NORMS[norm], bn_settings)

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    """Maps [V, B, D] to [V, B, output_size]."""
    for _ in range(self._num_layers - 1):
      x = hk.Linear(self._hidden_size)(x)
      x = self._norm()(x, is_training)
      x = jax.nn.relu(x)
    return hk.Linear(self._output_size, with_bias=False)(x)
