"""From a configuration to a trained state in a workdir."""
