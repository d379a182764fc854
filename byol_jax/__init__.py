"""BYOL (Bootstrap Your Own Latent, Grill et al. 2020) in JAX and Haiku."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# What the package offers, and the module of each: with JAX, imports take seconds.
_PLACES = {
  "load_encoder": "byol_jax.interop.encoder_folder",
  "open_run": "byol_jax.program",
  "pretrain": "byol_jax.program",
  "evaluate": "byol_jax.evaluation.runner",
}


def __getattr__(name: str) -> Any:
  """Imports what the package offers on its first use."""
  if name in _PLACES:
    return getattr(import_module(_PLACES[name]), name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
