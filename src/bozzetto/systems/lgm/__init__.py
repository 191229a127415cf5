"""LGM: posed pictures -> pixel-aligned Gaussians (arXiv 2402.05054), and the small model trained here."""
