"""Gaussians → textured mesh, step by step.

The object is moved into the unit sphere, drawn from all around, its depth maps are fused into a signed volume, the zero
level becomes triangles, and the pictures are baked onto them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import MeshError
from ..gaussians import Gaussians
from ..mesh import Mesh
from .bake import bake_texture
from .bounds import normalise_object
from .capture import capture_colour, capture_moments, pixel_footprint, solid_depth, sphere_cameras
from .clean import broad_normals, keep_large_components, taubin_smooth
from .fusion import fuse_depth
from .marching import marching_cubes
from .simplify import decimate, make_manifold
from .thin import TOLERANCE, thin_views
from .unwrap import unwrap

DEPTH_VIEWS = 40
COLOUR_VIEWS = [0, 1, 2, 3, *range(4, DEPTH_VIEWS, 2)]  # the four level ones and every second of the rest

METHODS = ("fast", "nerf")

Progress = Callable[[str, float], None]


def check_method(method: str) -> None:
    """Raise :class:`MeshError` for a way from Gaussians to a mesh that there is not."""
    if method not in METHODS:
        raise MeshError(f"the mesh method must be one of {', '.join(METHODS)}, got {method!r}")


@torch.no_grad()
def gaussians_to_mesh(
    gaussians: Gaussians,
    *,
    resolution: int | None = None,
    texture_size: int = 1024,
    max_faces: int = 50_000,
    method: str = "fast",
    seed: int = 0,
    progress: Progress | None = None,
) -> Mesh:
    """A closed triangle mesh with a baked texture that looks like the Gaussians.

    Args:
        gaussians: one object (no batch dimension), anywhere, of any size, on any device: pictures, volume and texture are
            made there, the rest is done on the CPU.
        resolution: voxels along the object's longest side, 16..512; details smaller than about two voxels are lost. None is
            128; with "nerf" 256 on a GPU and 160 on a CPU.
        texture_size: side of the square texture in texels.
        max_faces: upper limit for the number of triangles.
        method: "fast" (depth maps are fused; seconds) or "nerf" (a radiance field and a mesh are optimised; minutes on a CPU:
            :func:`.nerf.gaussians_to_mesh_by_nerf`, which takes more settings).
        seed: of everything random, which is in "nerf" alone.
        progress: called as ``progress(stage, fraction)`` with fraction 0..1 over the whole work.

    Returns:
        :class:`Mesh` on the CPU in the Gaussians' world frame with uvs, texture and normals; faces counter-clockwise
        seen from outside.

    Raises:
        MeshError: there is nothing to mesh (no visible Gaussians, no surface at this resolution), or an argument is
            out of range.
    """
    check_method(method)
    if method == "nerf":
        from .nerf import NerfSettings, gaussians_to_mesh_by_nerf

        return gaussians_to_mesh_by_nerf(
            gaussians,
            settings=NerfSettings.for_device(gaussians.device).changed(resolution=resolution),
            texture_size=texture_size,
            max_faces=max_faces,
            seed=seed,
            progress=progress,
        )
    resolution = 128 if resolution is None else resolution
    if not 16 <= resolution <= 512:
        raise MeshError(f"resolution must lie in 16..512 voxels, got {resolution}")
    if not 16 <= texture_size <= 8192:
        raise MeshError(f"texture_size must lie in 16..8192 texels, got {texture_size}")
    if max_faces < 4:
        raise MeshError(f"max_faces must be at least 4 (a tetrahedron), got {max_faces}")
    report = progress or (lambda stage, fraction: None)
    report("bounds", 0.0)
    found = normalise_object(gaussians.detach().to("cpu"))
    cameras = sphere_cameras(DEPTH_VIEWS)
    # A depth pixel about as wide as a voxel resolves what the volume can hold.
    voxel = float(2 * found.half_extent.amax() / resolution)
    depth_size = min(512, max(64, 16 * round(pixel_footprint(1) / voxel / 16)))
    seen = found.gaussians.to(gaussians.device)
    moments = capture_moments(seen, cameras, depth_size, lambda f: report("depth", 0.02 + 0.23 * f))
    depth, spread = solid_depth(*moments)
    thin = thin_views(*moments, cameras, max(2 * voxel, TOLERANCE * float(2 * found.half_extent.amax())))
    report("fusion", 0.25)
    volume, origin, voxel = fuse_depth(depth, spread, cameras, found.half_extent, resolution, seen, thin)
    report("surface", 0.4)
    vertices, faces = marching_cubes(volume, origin, voxel)
    vertices, faces = keep_large_components(vertices, faces)
    vertices = taubin_smooth(vertices, faces)
    vertices, faces = decimate(vertices, faces, max_faces)
    vertices, faces = make_manifold(vertices, faces)
    report("unwrap", 0.45)
    normals = Mesh(vertices, faces).with_normals(welded=True).normals
    welded = faces
    source, faces, uvs = unwrap(vertices, faces, texture_size)
    mesh = Mesh(vertices[source], faces, normals[source], uvs)
    colour_cameras = cameras[COLOUR_VIEWS]
    colour_size = min(1024, max(256, texture_size // 2))
    pictures = capture_colour(seen, colour_cameras, colour_size, lambda f: report("colour", 0.65 + 0.19 * f))
    report("texture", 0.85)
    mesh.texture = bake_texture(
        mesh.vertices,
        broad_normals(normals, welded)[source],
        mesh.faces,
        mesh.uvs,
        pictures,
        depth[COLOUR_VIEWS],
        spread[COLOUR_VIEWS],
        colour_cameras,
        texture_size,
        tolerance=2 * voxel,
    ).cpu()
    mesh.vertices = found.to_world(mesh.vertices).cpu()
    report("done", 1.0)
    return mesh
