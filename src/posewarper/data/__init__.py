"""Training samples: pairs, augmentation, batches."""
