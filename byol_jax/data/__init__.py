"""Images on disk to batches in memory; the only users of TensorFlow."""
