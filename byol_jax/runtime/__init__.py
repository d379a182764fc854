"""Devices, processes, shutdown, checkpoints and files."""
