"""BYOL (Bootstrap Your Own Latent, Grill et al. 2020) in JAX and Haiku."""

__version__ = "0.1.0"
