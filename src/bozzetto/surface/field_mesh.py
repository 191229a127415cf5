"""A density field and a colour field → a textured mesh. Any function of position will do: a network, or a formula.

The field is sampled on a regular grid, slab by slab, each slab becomes triangles by marching cubes, and the colour field is
asked for the colour of every texel (or every vertex). Nothing larger than one slab is ever held, so fine grids fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import MeshError
from ..mesh import Mesh
from .bake import fill_texture
from .coverage import covered_texels
from .marching_cubes import grid_surface
from .simplify import decimate, make_manifold
from .unwrap import unwrap

Field = Callable[[Tensor], Tensor]
Grid = Callable[[tuple[Tensor, Tensor, Tensor]], Callable[[int, int], Tensor]]
Progress = Callable[[str, float], None]
Box = tuple[Sequence[float], Sequence[float]]  # its lowest and its highest corner

POINTS_PER_SLAB = 1 << 25  # 128 MiB of float32


@torch.no_grad()
def field_to_mesh(
    density: Field,
    colour: Field,
    *,
    bounds: Box,
    resolution: int = 256,
    level: float = 0.0,
    texture: str = "uv",
    texture_size: int = 1024,
    max_faces: int = 0,
    chunk: int = 1 << 18,
    closed: bool = True,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    grid: Grid | None = None,
) -> Mesh:
    """The surface where ``density`` falls below ``level``, coloured by ``colour``.

    Args:
        density: points [N, 3] -> [N]; larger inside the object, like a density or a signed distance positive inside.
        colour: points [N, 3] -> sRGB [N, 3] in 0..1.
        bounds: the box ((x, y, z), (x, y, z)) to look in, in the field's own frame and units.
        resolution: samples along each side of the box, both ends included.
        level: the density at the surface.
        texture: "uv" for a texture picture, "vertex" for one colour per vertex.
        texture_size: side of the square texture in texels.
        max_faces: upper limit for the number of triangles; 0 keeps all of them.
        chunk: the most points in one call of a field; bounds the memory that the field needs.
        closed: put a lid where the object leaves the box; False leaves a hole there.
        device: where the points are made that the fields get.
        progress: called as ``progress(stage, fraction)`` with fraction 0..1 over the whole work.
        grid: a faster way to the density on a regular grid, if the field has one: the samples' coordinates (x [X], y [Y],
            z [Z]) -> a function (start, stop) -> densities [stop - start, Y, Z]; called for ascending slabs of x.

    Returns:
        :class:`Mesh` on the CPU in the field's frame; faces counter-clockwise seen from outside.

    Raises:
        MeshError: the density never crosses ``level``, or is NaN, or an argument is out of range.
    """
    check_surface_options(texture, texture_size, max_faces)
    report = progress or (lambda stage, fraction: None)
    vertices, faces = field_surface(
        density, bounds, resolution, level, chunk, closed, device, lambda f: report("surface", 0.5 * f), grid, True
    )
    return coloured_mesh(
        vertices,
        faces,
        colour,
        texture=texture,
        texture_size=texture_size,
        max_faces=max_faces,
        chunk=chunk,
        device=device,
        progress=lambda stage, f: report(stage, 0.5 + 0.5 * f),
    )


@torch.no_grad()
def coloured_mesh(
    vertices: Tensor,
    faces: Tensor,
    colour: Field,
    *,
    texture: str = "uv",
    texture_size: int = 1024,
    max_faces: int = 0,
    chunk: int = 1 << 18,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> Mesh:
    """A surface, vertices [V, 3] and faces [F, 3] on any device -> a mesh on the CPU with a texture or vertex colours.

    Vertex colours and normals are computed where the surface is. The other arguments, the frame and the errors are those of
    :func:`field_to_mesh`.
    """
    check_surface_options(texture, texture_size, max_faces)
    report = progress or (lambda stage, fraction: None)
    welded = not (max_faces and len(faces) > max_faces)
    if not welded:
        report("simplifying", 0.0)
        vertices, faces = make_manifold(*decimate(vertices.cpu(), faces.cpu(), max_faces))
    if texture == "vertex":
        report("colours", 0.2)
        colors = query_colour(colour, vertices, chunk, device, lambda f: report("colours", 0.2 + 0.8 * f))
        mesh = Mesh(vertices, faces, colors=colors).with_normals(welded).cpu()
    else:
        report("unwrapping", 0.1)
        vertices, faces = vertices.cpu(), faces.cpu()
        source, faces, uvs = unwrap(vertices, faces, texture_size)
        mesh = Mesh(vertices[source], faces, uvs=uvs).with_normals()
        mesh.texture = field_texture(
            mesh, colour, texture_size, chunk, device, lambda f: report("texture", 0.5 + 0.5 * f)
        )
    report("done", 1.0)
    return mesh


def check_surface_options(texture: str, texture_size: int, max_faces: int) -> None:
    """Raise :class:`MeshError` for values that no mesh can have."""
    if texture not in ("uv", "vertex"):
        raise MeshError(f"texture must be 'uv' or 'vertex', got {texture!r}")
    if not 16 <= texture_size <= 8192:
        raise MeshError(f"texture_size must lie in 16..8192 texels, got {texture_size}")
    if max_faces and max_faces < 4:
        raise MeshError(f"max_faces must be 0 (keep all) or at least 4 (a tetrahedron), got {max_faces}")


@torch.no_grad()
def field_surface(
    density: Field,
    bounds: Box,
    resolution: int,
    level: float,
    chunk: int = 1 << 18,
    closed: bool = True,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
    grid: Grid | None = None,
    on_device: bool = False,
) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] and faces [F, 3] of the level set, on the CPU or (``on_device``) where the densities are.

    The other arguments are those of :func:`field_to_mesh`.

    Marching cubes (:mod:`bozzetto.surface.marching_cubes`); on an ambiguous face, corners above the level are joined.
    """
    if resolution < 2:
        raise MeshError(f"resolution must be at least 2 samples, got {resolution}")
    if chunk < 1:
        raise MeshError(f"chunk must be at least one point, got {chunk}")
    low, high = (torch.tensor(corner, dtype=torch.float32, device=device) for corner in bounds)
    steps = torch.linspace(0, 1, resolution, device=device)
    axes = tuple(low[i] + steps * (high[i] - low[i]) for i in range(3))
    surface = grid_surface(
        grid(axes) if grid is not None else _by_points(density, axes, chunk),
        level,
        shape=(resolution,) * 3,
        slab=max(1, POINTS_PER_SLAB // resolution**2),
        closed=closed,
        progress=progress,
    )
    if surface.nans:
        raise MeshError("the density is NaN; the network's weights or its input are damaged")
    if len(surface.faces) == 0:
        raise MeshError(_no_surface(surface.least, surface.most, level))
    vertices, faces = surface.vertices, surface.faces
    if closed:  # where a lid meets another, each sample of the edge has a vertex of both
        vertices, faces = _weld(vertices, faces, ((vertices == 0) | (vertices == resolution - 1)).any(dim=1))
    low, high = low.to(vertices), high.to(vertices)
    vertices = low + vertices / (resolution - 1) * (high - low)
    return (vertices, faces) if on_device else (vertices.cpu(), faces.cpu())


def _by_points(density: Field, axes: tuple[Tensor, Tensor, Tensor], chunk: int) -> Callable[[int, int], Tensor]:
    """The density on a regular grid, asked for in pieces of ``chunk`` points: a :data:`Grid` for any function."""
    x, y, z = axes
    rows, row = len(y), len(z)

    def planes(start: int, stop: int) -> Tensor:
        total = (stop - start) * rows * row
        values = torch.empty(total, device=x.device)
        for begin in range(0, total, chunk):
            index = torch.arange(begin, min(begin + chunk, total), device=x.device)
            points = torch.stack([x[index // (rows * row) + start], y[index // row % rows], z[index % row]], dim=-1)
            values[begin : begin + len(index)] = density(points).reshape(-1)
        return values.reshape(-1, rows, row)

    return planes


def _weld(vertices: Tensor, faces: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
    """Merge those vertices at equal positions that are marked in ``common`` [V]; drop faces that collapse."""
    candidates = common.nonzero()[:, 0]
    if len(candidates) == 0:
        return vertices, faces
    places, group = torch.unique(vertices[candidates], dim=0, return_inverse=True)
    first = candidates.new_full((len(places),), len(vertices)).scatter_reduce_(0, group, candidates, "amin")
    index = torch.arange(len(vertices), device=vertices.device)
    index[candidates] = first[group]
    faces = index[faces]
    a, b, c = faces.unbind(-1)
    faces = faces[(a != b) & (b != c) & (c != a)]
    used = torch.zeros(len(vertices), dtype=torch.bool, device=vertices.device)
    used[faces] = True
    return vertices[used], (used.cumsum(0) - 1)[faces]


def _no_surface(least: float, most: float, level: float) -> str:
    if most <= level:
        return (
            f"the density never reaches {level:g} (its highest value is {most:.4g}), so there is no surface: "
            "lower the threshold, or give a photo in which the object is cut out cleanly and fills the frame"
        )
    return (
        f"the density is above {level:g} everywhere (its lowest value is {least:.4g}), so there is no surface: "
        "raise the threshold"
    )


@torch.no_grad()
def query_colour(
    colour: Field,
    points: Tensor,
    chunk: int = 1 << 18,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Colours [N, 3] in 0..1 of ``points`` [N, 3], asked for in pieces of ``chunk`` points, where ``points`` are."""
    out = torch.empty(len(points), 3, device=points.device)
    for begin in range(0, len(points), chunk):
        if progress is not None:
            progress(begin / len(points))
        out[begin : begin + chunk] = colour(points[begin : begin + chunk].to(device))
    if bool(torch.isnan(out).any()):
        raise MeshError("the colours are NaN; the network's weights or its input are damaged")
    return out.clamp(0, 1)


@torch.no_grad()
def field_texture(
    mesh: Mesh,
    colour: Field,
    texture_size: int,
    chunk: int = 1 << 18,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """The texture [S, S, 3] of an unwrapped mesh: the colour field where each texel lies on the surface.

    Texels between charts take the nearest chart texel, so that filtering and mipmaps show no seams.
    """
    texel, face, weights = covered_texels(mesh.uvs[mesh.faces] * texture_size, texture_size)
    if len(face) == 0:
        raise MeshError("the mesh's UV charts cover no texel; raise the texture size")
    points = (mesh.vertices[mesh.faces[face]] * weights[..., None]).sum(dim=1)  # [T, 3, 3] * [T, 3, 1] -> [T, 3]
    return fill_texture(query_colour(colour, points, chunk, device, progress), texel, texture_size)
