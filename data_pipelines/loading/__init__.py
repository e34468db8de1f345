"""Training batches: clips, augmentation, and checks of the data before a run."""
