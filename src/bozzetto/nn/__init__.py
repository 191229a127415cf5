"""Layers and execution that the systems' networks share. Each has a plain PyTorch twin, which runs where Triton does not."""
