"""Benchmarks of byol_jax, each beside the program that it is compared with."""
