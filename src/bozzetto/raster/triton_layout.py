"""What a call of the Triton rasterizer looks like, and the sizes that its kernels agree on."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .triton_numbers import INTERPRETED

TILE = 32  # pixels along each side of a tile
CELL = 8  # pixels along each side of the cells that a tile is made of
BLOCK = 16 if INTERPRETED else 512  # Gaussians that a program projects
DENSE = 0.5  # Gaussians per pixel from which larger parts of cells are better for the gradient


class Layout(NamedTuple):
    """What a call of the rasterizer looks like, apart from its tensors.

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

    @property
    def cameras(self) -> int:
        """Pictures in all."""
        return self.scenes * self.views

    @property
    def tiles_x(self) -> int:
        """Tiles of a row of a picture."""
        return -(-self.width // TILE)

    @property
    def groups(self) -> int:
        """Programs that project the Gaussians of one view."""
        return -(-self.n // BLOCK)

    @property
    def index(self) -> torch.dtype:
        """Of Gaussians' indices within their scene and of positions in lists; 16 bits are read without sign."""
        return torch.int16 if self.n <= 1 << 16 else torch.int32

    @property
    def lean(self) -> bool:
        """Whether records are without colour and z. That takes less memory and more loads."""
        return self.k == 1 and self.views == 1

    @property
    def record(self) -> int:
        """int64 of a record."""
        return 3 if self.lean else 5

    @property
    def lanes(self) -> int:
        """Threads for each part of a cell in the gradient of the compositing."""
        return 4 if self.n >= DENSE * self.height * self.width else 2

    @property
    def parts(self) -> int:
        """Parts of a cell there, of eight pixels a thread."""
        return CELL * CELL // (8 * self.lanes)

    @property
    def tiles(self) -> int:
        """Tiles of a picture."""
        return self.tiles_x * -(-self.height // TILE)
