"""BYOL (Bootstrap Your Own Latent, Grill et al. 2020) in JAX and Haiku."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
  """Imports `load_encoder` on its first use: with JAX that takes two seconds."""
  if name == "load_encoder":
    from byol_jax.interop.encoder_folder import load_encoder

    return load_encoder
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
