"""From videos on disk to batches of NumPy arrays. Needs neither JAX nor a GPU."""
