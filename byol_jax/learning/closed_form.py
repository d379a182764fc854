"""The best linear predictor of a batch, in closed form."""

import chex
import jax
import jax.numpy as jnp

from byol_jax.learning import losses
from byol_jax.runtime import devices


def least_squares(
  inputs: chex.Array,
  outputs: chex.Array,
  ridge: float,
  axis_name: str | None = None,
) -> chex.Array:
  """Returns the matrix Q that makes inputs Q closest to the outputs.

  Q = (Z^T Z + r I)^-1 Z^T Z', by a Cholesky factorisation. `r` is `ridge` times the
  mean of the eigenvalues of Z^T Z, so Q does not depend on the scale of Z.

  Args:
    inputs: Z, [N, P], the rows of this device.
    outputs: Z', [N, D].
    ridge: above 0; Z^T Z is singular with fewer rows than P.
    axis_name: devices whose rows count together.

  Returns:
    [P, D].
  """

  def product(a: chex.Array, b: chex.Array) -> chex.Array:
    # The condition of Z^T Z is that of Z squared.
    return jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)

  gram, cross = devices.mean_over_devices(
    (product(inputs, inputs), product(inputs, outputs)), axis_name
  )
  size = len(gram)
  regularised = gram + ridge * jnp.trace(gram) / size * jnp.eye(size)
  return jax.scipy.linalg.solve(regularised, cross, assume_a="pos")


def with_closed_form_predictor(
  loss: losses.RepresentationLoss, ridge: float
) -> losses.RepresentationLoss:
  """Returns a loss whose predictions are the best linear ones of the batch.

  One matrix predicts in both directions. The gradient does not flow through it, but
  through the projections that it multiplies: the squared distance is smallest at this
  matrix, so its derivative by the matrix is 0 (envelope theorem).

  Args:
    loss: of the outputs of both networks.
    ridge: see `least_squares`.
  """

  def with_predictions(
    online: losses.BothViews,
    target: losses.BothViews,
    axis_name: str | None = None,
  ) -> chex.Array:
    inputs = jnp.concatenate([view.projection for view in online])
    outputs = jnp.concatenate([view.projection for view in reversed(target)])
    matrix = jax.lax.stop_gradient(
      least_squares(inputs, outputs, ridge, axis_name)
    )
    first, second = (
      view._replace(prediction=view.projection @ matrix) for view in online
    )
    return loss((first, second), target, axis_name)

  return with_predictions
