"""How fast the parts of byol_jax are, each beside what it is compared with."""
