"""The networks: layers, encoders, heads."""
