"""Gaussians -> meshes: depth fusion, marching cubes, cleaning, UV unwrapping, texture baking."""

from .pipeline import gaussians_to_mesh

__all__ = ["gaussians_to_mesh"]
