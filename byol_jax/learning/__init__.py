"""BYOL as pure functions: losses, optimizers and the update step."""
