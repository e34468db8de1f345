"""Data pipelines: from videos on disk to batches of NumPy arrays, without JAX."""

from data_pipelines.io.environment import report_missing_modules

report_missing_modules()
