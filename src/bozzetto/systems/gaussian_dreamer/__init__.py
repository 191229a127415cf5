"""GaussianDreamer (Yi et al. 2023): words -> Gaussians, by optimisation under a picture diffusion model."""
