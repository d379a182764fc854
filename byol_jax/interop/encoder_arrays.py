"""The encoder's part of a state: as Haiku's variables, and as named arrays."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from byol_jax import errors
from byol_jax.interop.encoder import Variables
from byol_jax.learning.learner import TrainState
from byol_jax.models import networks


def variables(state: TrainState) -> Variables:
  """Returns parameters and batch-norm statistics of the online encoder."""
  params, statistics = (
    {m: leaves for m, leaves in tree.items() if networks.is_of_encoder(m)}
    for tree in (state.online_params, state.online_state)
  )
  return params, statistics


def by_name(kind: str, tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the leaves of the encoder, by their names in an encoder file.

  Args:
    kind: params or state.
    tree: of the whole network or of the encoder alone, as Haiku names it.
  """
  return {
    f"{kind}/{module}/{name}": leaf
    for module, leaves in tree.items()
    for name, leaf in leaves.items()
    if networks.is_of_encoder(module)
  }


def of_state(state: TrainState) -> dict[str, Any]:
  """Returns the NumPy arrays of the online encoder by their names in a file.

  Raises:
    UserError: if one holds NaN or infinity.
  """
  arrays = jax.device_get(
    by_name("params", state.online_params)
    | by_name("state", state.online_state)
  )
  # safetensors writes the memory of an array as it lies.
  arrays = {name: np.asarray(x, order="C") for name, x in arrays.items()}
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise errors.UserError(
        f"{name} of step {state.step} holds NaN or infinity, so the encoder is of"
        " no use; export an earlier checkpoint by --step."
      )
  return arrays
