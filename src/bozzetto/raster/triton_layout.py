"""What a call of the Triton rasterizer looks like, and the sizes that its kernels agree on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from .triton_numbers import INTERPRETED

TILE = 32  # pixels along each side of a tile
CELL = 8  # pixels along each side of the cells that a tile is made of
BLOCK = 16 if INTERPRETED else 512  # Gaussians that a program projects
DENSE = 0.5  # Gaussians per pixel from which larger parts of cells are better for the gradient


@dataclass(frozen=True, eq=False)
class Layout:
    """What a call of the rasterizer looks like, apart from its tensors. Calls that look alike share one (:func:`layout_of`).

    Attributes:
        scenes, views, n, k: numbers of scenes, of views of each, of Gaussians of a scene and of SH coefficients of each.
        height, width: size of the pictures in pixels.
        near, far: Gaussians whose camera z is not between are dropped; world units.
        poses: whether cameras come as camera-to-world matrices with OpenGL axes and intrinsics normalised by the picture's
            size (as :class:`bozzetto.camera.Cameras` has them) and not as view matrices and pixels.
        view_scene, view_step: elements from one scene's, from one view's 4 x 4 matrix to the next.
        lens_scene, lens_step: the same for intrinsics.
    """

    scenes: int
    views: int
    n: int
    k: int
    height: int
    width: int
    near: float
    far: float
    poses: bool
    view_scene: int
    view_step: int
    lens_scene: int
    lens_step: int

    @cached_property
    def cameras(self) -> int:
        """Pictures in all."""
        return self.scenes * self.views

    @cached_property
    def rows(self) -> int:
        """Gaussians of all pictures."""
        return self.cameras * self.n

    @cached_property
    def tiles_x(self) -> int:
        """Tiles of a row of a picture."""
        return -(-self.width // TILE)

    @cached_property
    def groups(self) -> int:
        """Programs that project the Gaussians of one view."""
        return -(-self.n // BLOCK)

    @cached_property
    def index(self) -> torch.dtype:
        """Of Gaussians' indices within their scene and of positions in lists; 16 bits are read without sign."""
        return torch.int16 if self.n <= 1 << 16 else torch.int32

    @cached_property
    def lean(self) -> bool:
        """Whether records are without colour and z. That takes less memory and more loads."""
        return self.k == 1 and self.views == 1

    @cached_property
    def record(self) -> int:
        """int64 of a record."""
        return 3 if self.lean else 5

    @cached_property
    def lanes(self) -> int:
        """Threads for each part of a cell in the gradient of the compositing."""
        return 4 if self.n >= DENSE * self.height * self.width else 2

    @cached_property
    def parts(self) -> int:
        """Parts of a cell there, of eight pixels a thread."""
        return CELL * CELL // (8 * self.lanes)

    @cached_property
    def tiles(self) -> int:
        """Tiles of a picture."""
        return self.tiles_x * -(-self.height // TILE)


@lru_cache(256)
def layout_of(*values: float) -> Layout:
    """The layout of these attributes, in their order."""
    return Layout(*values)
