"""From videos on disk to batches of NumPy arrays. Needs neither JAX nor a GPU."""

from data_pipelines.io.environment import report_missing_modules

report_missing_modules()
