"""Training lgm-mini: losses, augmentation, the loop and its checkpoints."""
