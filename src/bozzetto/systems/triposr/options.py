"""What a user can set for TripoSR."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InputError
from ...options import check_options, option


@dataclass(frozen=True)
class PhotoOptions:
    """Options of a photo."""

    resolution: int = option(256, "samples of the density along each side of the cube", low=32, high=1024)
    threshold: float = option(25.0, "density at the surface; lower keeps thin and faint parts", low=1e-3, high=1e6)
    foreground_ratio: float = option(0.85, "share of the picture's side that the object fills", low=0.1, high=1.0)
    texture: str = option("uv", "a texture picture, or one colour per vertex", choices=("uv", "vertex"))
    texture_size: int = option(1024, "side of the texture in texels", low=64, high=8192)
    mesh_format: str = option("glb", "file format of the mesh", choices=("glb", "obj", "usdz"))
    max_faces: int = option(0, "upper limit for the number of triangles; 0 keeps all", low=0)
    chunk_size: int = option(131072, "points per query of the field; lower needs less memory", low=256, high=1 << 24)

    def __post_init__(self) -> None:
        check_options(self)
        if 0 < self.max_faces < 4:
            raise InputError(f"--max-faces must be 0 (keep all) or at least 4, got {self.max_faces}")
