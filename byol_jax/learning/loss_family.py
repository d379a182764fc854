"""The family of losses that the paper compares BYOL's with."""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp

from byol_jax import errors
from byol_jax.config import schema
from byol_jax.learning import losses
from byol_jax.runtime import devices

# The paper does not give one. Our choice: that of its batch norm.
_EPS = 1e-5

# From vectors [B, D] of one of several devices, and the devices' axis, to vectors of
# length 1 (l2, layer), of length 1 on average (batch), or as they are (none).
Normalize = Callable[[chex.Array, str | None], chex.Array]


def _l2(x: chex.Array, axis_name: str | None) -> chex.Array:
  del axis_name
  return losses.l2_normalize(x)


def _layer(x: chex.Array, axis_name: str | None) -> chex.Array:
  del axis_name
  return jax.nn.standardize(x, axis=-1, epsilon=_EPS) / x.shape[-1] ** 0.5


def _batch(x: chex.Array, axis_name: str | None) -> chex.Array:
  mean, mean_of_squares = devices.mean_over_devices(
    (jnp.mean(x, axis=0), jnp.mean(jnp.square(x), axis=0)), axis_name
  )
  var = mean_of_squares - jnp.square(mean)
  return (x - mean[None]) * jax.lax.rsqrt(var + _EPS)[None] / x.shape[-1] ** 0.5


def _none(x: chex.Array, axis_name: str | None) -> chex.Array:
  del axis_name
  return x


NORMALIZATIONS: dict[str, Normalize] = {
  "l2": _l2,
  "layer": _layer,
  "batch": _batch,
  "none": _none,
}


def make_loss(config: schema.LossConfig) -> losses.RepresentationLoss:
  """Returns the loss of a configuration; by default BYOL's own.

  For each direction from a view v to the other view v', with the normalised
  predictions q and projections z, it is

      |q_i - z'_i|^2 + 2 alpha beta ln(sum_{j != i} exp(q_i z_j / alpha)
                                       + sum_j exp(q_i z'_j / alpha))

  in the mean over the images i (Grill et al. 2020, InfoNCE family). `beta` = 0 is
  BYOL. `beta` = 1 without predictor and target network is SimCLR's NT-Xent, times
  2 alpha and plus 2. The images j are those of a micro-batch on all devices.

  With `relic`, 2 alpha relic times the divergence KL(p || p') is added, where p is
  softmax(q_i z'_j / alpha) over the images j, and p' is that of the other direction
  (Mitrovic et al. 2020).

  Raises:
    UserError: if the normalisation is unknown.
  """
  if config.normalization not in NORMALIZATIONS:
    raise errors.unknown_name(
      "loss.normalization", config.normalization, NORMALIZATIONS
    )
  if (
    config.normalization == "l2"
    and config.symmetric
    and config.target_network
    and config.beta == config.relic == 0
  ):
    return losses.byol_loss
  normalize = NORMALIZATIONS[config.normalization]
  directions = ((0, 1), (1, 0)) if config.symmetric else ((0, 1),)

  def loss(
    online: losses.BothViews,
    target: losses.BothViews,
    axis_name: str | None = None,
  ) -> chex.Array:
    of_target = online
    if config.target_network:
      of_target = jax.lax.stop_gradient(target)
    queries = [normalize(view.prediction, axis_name) for view in online]
    keys = [normalize(view.projection, axis_name) for view in of_target]
    total = sum(
      jnp.mean(jnp.sum(jnp.square(queries[v] - keys[w]), axis=-1))
      for v, w in directions
    )
    if config.beta:
      total += config.beta * sum(
        _log_of_negatives(queries[v], keys[v], keys[w], config.alpha, axis_name)
        for v, w in directions
      )
    if config.relic:
      total += config.relic * _divergences(
        queries, keys, directions, config.alpha, axis_name
      )
    return total

  return loss


def _similarities(
  queries: chex.Array, keys: chex.Array, alpha: float, axis_name: str | None
) -> chex.Array:
  """Returns q_i z_j / alpha of own images i and the images j of all devices."""
  keys, _ = devices.gather_over_devices(keys, axis_name)
  # Temperatures enlarge what accelerators round in products by default.
  product = jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST)
  return product / alpha


def _log_of_negatives(
  queries: chex.Array,
  same_view: chex.Array,
  other_view: chex.Array,
  alpha: float,
  axis_name: str | None,
) -> chex.Array:
  """Returns the logarithm in `make_loss`, times 2 alpha, in the mean."""
  same = _similarities(queries, same_view, alpha, axis_name)
  _, first = devices.gather_over_devices(same_view, axis_name)
  rows = jnp.arange(same.shape[0])
  same = same.at[rows, first + rows].set(-jnp.inf)
  other = _similarities(queries, other_view, alpha, axis_name)
  both = jnp.concatenate([same, other], axis=1)
  return 2 * alpha * jnp.mean(jax.nn.logsumexp(both, axis=1))


def _divergences(
  queries: Sequence[chex.Array],
  keys: Sequence[chex.Array],
  directions: Sequence[tuple[int, int]],
  alpha: float,
  axis_name: str | None,
) -> chex.Array:
  """Returns the divergence in `make_loss`, times 2 alpha, over all directions."""
  log_p = [
    jax.nn.log_softmax(_similarities(queries[v], keys[w], alpha, axis_name))
    for v, w in ((0, 1), (1, 0))
  ]
  divergence = sum(
    jnp.mean(jnp.sum(jnp.exp(log_p[v]) * (log_p[v] - log_p[w]), axis=-1))
    for v, w in directions
  )
  return 2 * alpha * jnp.asarray(divergence)
