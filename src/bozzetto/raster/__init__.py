"""Gaussians -> pictures, with gradients. One function, three implementations of one contract.

:func:`rasterize` picks by device: Triton kernels on CUDA, compiled kernels on the CPU; ``backend="reference"`` is the plain
PyTorch version that both are tested against.
"""

from .api import BACKENDS, Rendering, rasterize

__all__ = ["BACKENDS", "Rendering", "rasterize"]
