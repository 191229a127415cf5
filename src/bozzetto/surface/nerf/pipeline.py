"""Gaussians -> field -> mesh -> texture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import MeshError
from ...gaussians import Gaussians
from ...mesh import Mesh
from ..bounds import normalise_object
from ..clean import keep_large_components, taubin_smooth
from ..field_mesh import check_surface_options
from ..marching_cubes import grid_surface
from ..simplify import decimate, make_manifold
from ..unwrap import unwrap
from .field import NerfField
from .guide import DepthGuide, depth_guide
from .march import Occupancy
from .prepare import prepare_kernels
from .recorded_step import release_memory
from .refine import refine_mesh
from .settings import OBJECT_RADIUS, NerfSettings
from .texture import fit_texture
from .train import train_field

Progress = Callable[[str, float], None]
CHUNK = 1 << 20  # points in one call of the field
MARGIN = 0.05  # around the object's box, in the field's frame
LEAST_DENSITY = 1.0  # what the field starts with; an object of unit size with less is see-through


def gaussians_to_mesh_by_nerf(
    gaussians: Gaussians,
    *,
    settings: NerfSettings | None = None,
    texture_size: int = 1024,
    max_faces: int = 50_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Mesh:
    """A closed triangle mesh with a texture, found by optimisation against pictures of the Gaussians.

    A radiance field is trained on pictures, its surface is taken, its vertices and colours are fitted to pictures, then its
    texture. Slower than :func:`bozzetto.surface.gaussians_to_mesh`'s fast route; for splats that are half transparent or fuzzy.

    Args:
        gaussians: one object, anywhere, of any size; the work is done on its device. None are changed.
        settings: how much work; None is :meth:`NerfSettings.for_device`.
        texture_size: side of the square texture in texels. max_faces: upper limit for the number of triangles.
        seed: of everything random. The same seed gives the same mesh on a CPU; on a GPU sums of gradients have no fixed order,
            so that two runs differ slightly.
        progress: called as ``progress(stage, fraction)`` with fraction 0..1 over the whole work.

    Returns:
        :class:`Mesh` on the CPU in the Gaussians' world frame with uvs, texture and normals.

    Raises:
        MeshError: there is nothing to mesh, or an argument is out of range.
    """
    s = settings or NerfSettings.for_device(gaussians.device)
    s.check()
    check_surface_options("uv", texture_size, max_faces)
    if max_faces < 4:
        raise MeshError(f"max_faces must be at least 4 (a tetrahedron), got {max_faces}")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise MeshError(f"the seed must be a whole number in 0..2^63 - 1, got {seed!r}")
    report = progress or (lambda stage, fraction: None)
    report("bounds", 0.0)
    wait_for_kernels = prepare_kernels(gaussians, s)
    found = normalise_object(gaussians.detach().to("cpu"))
    wait_for_kernels()
    guide = depth_guide(found, gaussians.device)
    g = found.gaussians.to(gaussians.device)
    seen = Gaussians(g.means * OBJECT_RADIUS, g.scales * OBJECT_RADIUS, g.quats, g.opacities, g.sh)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        field, occupancy = train_field(seen, s, generator, lambda f: report("radiance field", 0.02 + 0.43 * f))
    field.requires_grad_(False)
    report("surface", 0.45)
    vertices, faces = _surface(field, occupancy, guide, found.half_extent * OBJECT_RADIUS + MARGIN, s)
    vertices, faces = keep_large_components(vertices, faces)
    vertices = taubin_smooth(vertices, faces)
    vertices, faces = make_manifold(*decimate(vertices, faces, max_faces))
    field.colour_grid.requires_grad_(True)
    field.colour_network.requires_grad_(True)
    with torch.enable_grad():
        vertices, faces = refine_mesh(
            vertices, faces, field, seen, s, generator, lambda f: report("refinement", 0.48 + 0.37 * f)
        )
    field.requires_grad_(False)
    report("unwrap", 0.85)
    source, faces, uvs = unwrap(vertices, faces, texture_size)
    mesh = Mesh(vertices[source], faces, uvs=uvs).with_normals()
    with torch.enable_grad():
        mesh.texture = fit_texture(
            mesh, field, seen, texture_size, s, generator, lambda f: report("texture", 0.9 + 0.1 * f)
        )
    release_memory(gaussians.device)
    mesh.vertices = found.to_world(mesh.vertices / OBJECT_RADIUS)
    report("done", 1.0)
    return mesh


@torch.no_grad()
def _surface(
    field: NerfField, occupancy: Occupancy, guide: DepthGuide, half: Tensor, s: NerfSettings
) -> tuple[Tensor, Tensor]:
    """Marching cubes of the density in the box of half sides ``half`` [3]; asks only where the occupancy grid has something."""
    device = occupancy.values.device
    voxel = float(2 * half.amax()) / (s.resolution - 1)
    counts = (2 * half / voxel).ceil().long() + 1
    x, y, z = (torch.arange(int(n), device=device) * voxel - float(h) for n, h in zip(counts, half, strict=True))
    wide = torch.nn.functional.max_pool3d(occupancy.full[None].float(), 3, 1, 1)[0] > 0
    near = Occupancy(occupancy.side, device)
    near.full = wide & occupancy.possible

    def planes(start: int, stop: int) -> Tensor:
        points = torch.stack(torch.meshgrid(x[start:stop], y, z, indexing="ij"), dim=-1).reshape(-1, 3)
        values = torch.zeros(len(points), device=device)
        index = near.contains(points).nonzero()[:, 0]
        for part in index.split(CHUNK):
            values[part] = field.density(points[part])
        for own, part in zip(values.split(CHUNK), points.split(CHUNK), strict=True):
            torch.maximum(own, level * guide.filling(part), out=own)
        return values.reshape(stop - start, len(y), len(z))

    # A short training stays softer than the published level.
    level = min(s.density, 0.5 * float(occupancy.values.amax()) / s.step)
    if not level > LEAST_DENSITY:
        raise MeshError(
            f"the radiance field stayed empty (density {2 * level:.2g} at most): the object is too transparent, or the "
            "training too short; raise the steps or use the fast method"
        )
    shape = (len(x), len(y), len(z))
    slab = max(1, (1 << 24) // (shape[1] * shape[2]))
    surface = grid_surface(planes, level, shape=shape, slab=slab, closed=True)
    if surface.nans or len(surface.faces) == 0:
        raise MeshError(
            "the radiance field holds no surface; raise the steps or the resolution, or use the fast method"
        )
    return surface.vertices.cpu() * voxel - half, surface.faces.cpu()
