"""The predictors on the online network's projector, by `model.predictor.kind`."""

from collections.abc import Callable

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.models.batch_norm import Settings
from byol_jax.models.heads import MLP
from byol_jax.runtime import devices

Predictor = Callable[[chex.Array, bool], chex.Array]  # [V, B, P] to [V, B, P].

_NAME = "predictor"

# Tian et al. 2021 (arXiv 2102.06810): rho and epsilon.
_DECAY = 0.3
_BOOST = 0.1


class DirectPred(hk.Module):
  """A linear predictor that follows from the second moment of the projections.

  With the moving average F <- rho F + (1 - rho) E[z z^T] over both views and all
  devices, and its eigenvalues s in F = U diag(s) U^T, it is the matrix
  U diag(sqrt(s) + epsilon max(s)) U^T, with rho = 0.3 and epsilon = 0.1 (Tian et al.
  2021). In training F includes the batch. No gradient flows through the matrix.
  """

  def __init__(self, axis_name: str | None, name: str):
    super().__init__(name=name)
    self._axis_name = axis_name

  def __call__(self, x: chex.Array, is_training: bool) -> chex.Array:
    """Maps [V, B, P] to the same shape, in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    size = x.shape[-1]
    moment = hk.get_state("moment", (size, size), x.dtype, jnp.zeros)
    if is_training:
      rows = jax.lax.stop_gradient(x.reshape(-1, size))
      of_batch = devices.mean_over_devices(
        _product(rows.T, rows) / len(rows), self._axis_name
      )
      moment = _DECAY * moment + (1 - _DECAY) * of_batch
      hk.set_state("moment", moment)
    eigenvalues, vectors = jnp.linalg.eigh(moment)
    eigenvalues = jnp.maximum(
      eigenvalues, 0
    )  # Rounding may make them negative.
    gains = jnp.sqrt(eigenvalues) + _BOOST * jnp.max(eigenvalues)
    return x @ _product(vectors * gains[None], vectors.T)


def _product(a: chex.Array, b: chex.Array) -> chex.Array:
  # Accelerators round products by default, which would show in small eigenvalues.
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _mlp(config: schema.ModelConfig, bn_settings: Settings) -> Predictor:
  return MLP(
    config.predictor.layers,
    config.predictor.hidden_size,
    config.projector.output_size,
    config.predictor.norm,
    bn_settings,
    _NAME,
  )


def _identity(config: schema.ModelConfig, bn_settings: Settings) -> Predictor:
  del config, bn_settings
  return lambda x, is_training: x


def _direct_pred(
  config: schema.ModelConfig, bn_settings: Settings
) -> Predictor:
  del config
  return DirectPred(bn_settings.axis_name, _NAME)


# closed_form needs the target network's projections, so the loss applies it: see
# `learning.closed_form`.
PREDICTORS: dict[str, Callable[[schema.ModelConfig, Settings], Predictor]] = {
  "mlp": _mlp,
  "none": _identity,
  "closed_form": _identity,
  "direct_pred": _direct_pred,
}


def find(
  config: schema.ModelConfig,
) -> Callable[[schema.ModelConfig, Settings], Predictor]:
  """Returns what builds the predictor; `UserError` if its kind is unknown."""
  kind = config.predictor.kind
  if kind not in PREDICTORS:
    raise errors.unknown_name("model.predictor.kind", kind, PREDICTORS)
  return PREDICTORS[kind]
