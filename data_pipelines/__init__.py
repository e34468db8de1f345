"""From videos on disk to batches of NumPy arrays. Needs neither JAX nor a GPU."""

from data_pipelines.io.environment import tell_missing_modules

tell_missing_modules()
