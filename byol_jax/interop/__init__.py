"""Weights in and out of this package."""
