"""Shap-E: text or a photo -> a latent -> the weights of a small MLP that is at once a NeRF and a textured SDF (arXiv 2305.02463)."""
