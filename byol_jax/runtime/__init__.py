"""Devices, processes, signals, checkpoints and files."""
