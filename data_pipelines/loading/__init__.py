"""Training batches: clips, their augmentation, and checks before a run."""
