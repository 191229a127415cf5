"""L4GM: a video of an object and one set of views of its first frame -> Gaussians for every moment (arXiv 2406.10324)."""
