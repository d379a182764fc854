"""Evaluation of an encoder: protocols, their registry and their runner."""
