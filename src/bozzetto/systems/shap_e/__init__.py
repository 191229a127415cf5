"""Shap-E: text or a photo -> a latent -> the weights of an MLP that is a NeRF and a textured SDF (arXiv 2305.02463)."""
