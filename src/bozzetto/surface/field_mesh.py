"""A density field and a colour field → a textured mesh. Any function of position will do: a network, or a formula.

The field is sampled on a regular grid, slab by slab, each slab becomes triangles by marching cubes, and the colour field is
asked for the colour of every texel (or every vertex). Nothing larger than one slab is ever held, so fine grids fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import MeshError
from ..mesh import Mesh
from .bake import fill_texture, one_face_per_texel
from .coverage import covered_pixels
from .simplify import decimate, make_manifold
from .unwrap import unwrap

Field = Callable[[Tensor], Tensor]
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

    Returns:
        :class:`Mesh` on the CPU in the field's frame; faces counter-clockwise seen from outside.

    Raises:
        MeshError: the density never crosses ``level``, or is NaN, or an argument is out of range.
    """
    check_surface_options(texture, texture_size, max_faces)
    report = progress or (lambda stage, fraction: None)
    vertices, faces = field_surface(
        density, bounds, resolution, level, chunk, closed, device, lambda f: report("surface", 0.5 * f)
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
    """A surface on the CPU, vertices [V, 3] and faces [F, 3] -> a mesh with a texture or vertex colours.

    The other arguments, the frame and the errors are those of :func:`field_to_mesh`.
    """
    check_surface_options(texture, texture_size, max_faces)
    report = progress or (lambda stage, fraction: None)
    if max_faces and len(faces) > max_faces:
        report("simplifying", 0.0)
        vertices, faces = make_manifold(*decimate(vertices, faces, max_faces))
    if texture == "vertex":
        report("colours", 0.2)
        colors = query_colour(colour, vertices, chunk, device, lambda f: report("colours", 0.2 + 0.8 * f))
        mesh = Mesh(vertices, faces, colors=colors).with_normals()
    else:
        report("unwrapping", 0.1)
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
) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] and faces [F, 3] of the level set, on the CPU; arguments as in :func:`field_to_mesh`.

    Marching cubes in the form of Lorensen and Cline (1987), as TripoSR uses it: in an ambiguous cube, corners above the
    level are joined. The slabs share a plane of samples, so they fit exactly and their common vertices are merged.
    """
    if resolution < 2:
        raise MeshError(f"resolution must be at least 2 samples, got {resolution}")
    if chunk < 1:
        raise MeshError(f"chunk must be at least one point, got {chunk}")
    report = progress or (lambda fraction: None)
    low, high = (torch.tensor(corner, dtype=torch.float32) for corner in bounds)
    pad = int(closed)
    planes = max(2, min(resolution + 2 * pad, POINTS_PER_SLAB // resolution**2))  # samples of a slab along x
    parts, count, seams = [], 0, []
    least, most = float("inf"), float("-inf")
    first, last = -pad, resolution - 1 + pad  # planes along x, with the lids
    start, shared = first, None
    while start < last:
        stop = min(start + planes - 1, last)
        fresh = _sample(density, range(start + (shared is not None), stop + 1), low, high, resolution, chunk, device)
        inner = fresh[[i for i, x in enumerate(range(stop + 1 - len(fresh), stop + 1)) if 0 <= x < resolution]]
        if inner.numel():
            least, most = min(least, float(inner.min())), max(most, float(inner.max()))
        if pad:
            fresh = torch.nn.functional.pad(fresh, (1, 1, 1, 1), value=float("nan"))
        slab = fresh if shared is None else torch.cat([shared, fresh])
        shared = slab[-1:]
        triangles = _slab_triangles(slab, level)
        if triangles is not None:
            vertices, faces = triangles
            vertices += np.array([start, -pad, -pad], np.float32)
            parts.append((vertices, faces + count))
            count += len(vertices)
        seams.append(stop)
        report((stop - first) / (last - first))
        start = stop
    if not parts:
        raise MeshError(_no_surface(least, most, level))
    vertices, faces = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    vertices = vertices.clip(0, resolution - 1)  # the lids lie on the box
    common = np.isin(vertices[:, 0], seams[:-1])
    if closed:
        common |= ((vertices == 0) | (vertices == resolution - 1)).any(axis=1)
    vertices, faces = _weld(vertices, faces, common)
    position = torch.from_numpy(vertices) / (resolution - 1)
    return low + position * (high - low), torch.from_numpy(faces)


def _sample(
    density: Field, planes: range, low: Tensor, high: Tensor, resolution: int, chunk: int, device: str | torch.device
) -> Tensor:
    """Densities [len(planes), R, R] on planes of constant x, on the CPU; NaN on planes outside of the box."""
    low, high = low.to(device), high.to(device)
    axis = torch.linspace(0, 1, resolution, device=device)
    x, y, z = (low[i] + axis * (high[i] - low[i]) for i in range(3))
    inner = [p for p in planes if 0 <= p < resolution]
    values = torch.full((len(planes), resolution, resolution), float("nan"))
    row, total = resolution, len(inner) * resolution**2
    sampled = torch.empty(total)
    for begin in range(0, total, chunk):
        index = torch.arange(begin, min(begin + chunk, total), device=device)
        i = index // (row * row) + (inner[0] if inner else 0)
        points = torch.stack([x[i], y[index // row % row], z[index % row]], dim=-1)
        sampled[begin : begin + len(index)] = density(points).reshape(-1).float().cpu()
    if bool(torch.isnan(sampled).any()):
        raise MeshError("the density is NaN; the network's weights or its input are damaged")
    if inner:
        values[inner[0] - planes[0] : inner[-1] + 1 - planes[0]] = sampled.reshape(-1, row, row).clamp(-1e30, 1e30)
    return values


def _slab_triangles(slab: Tensor, level: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Triangles of one slab [X, Y, Z] in sample coordinates, or None; NaN marks what is outside of the box."""
    from skimage.measure import marching_cubes

    inside = slab > level
    if not bool(inside.any()) or bool(inside.all()):
        return None
    outside = torch.where(torch.isnan(slab), torch.inf, slab).amin().clamp(max=level - 1.0)
    # Negated: the corner bit of the tables is set below the level, which decides how ambiguous cubes are cut.
    volume = -torch.where(torch.isnan(slab), outside, slab)
    if not bool((volume > -level).any()):
        return None
    vertices, faces, _, _ = marching_cubes(volume.numpy(), -level, method="lorensen")
    return vertices.astype(np.float32), faces.astype(np.int64)


def _weld(vertices: np.ndarray, faces: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge those vertices at equal positions that are marked in ``common`` [V]; drop faces that collapse."""
    index, candidates = np.arange(len(vertices)), np.flatnonzero(common)
    _, first, inverse = np.unique(vertices[candidates], axis=0, return_index=True, return_inverse=True)
    index[candidates] = candidates[first[inverse.reshape(-1)]]
    faces = index[faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[used], faces.reshape(-1, 3)


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
    """Colours [N, 3] in 0..1 of ``points`` [N, 3], asked for in pieces of ``chunk`` points, on the CPU."""
    out = torch.empty(len(points), 3)
    for begin in range(0, len(points), chunk):
        if progress is not None:
            progress(begin / len(points))
        out[begin : begin + chunk] = colour(points[begin : begin + chunk].to(device)).float().cpu()
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
    face, texel, weights = covered_pixels(mesh.uvs[mesh.faces] * texture_size, texture_size, texture_size)
    if len(face) == 0:
        raise MeshError("the mesh's UV charts cover no texel; raise the texture size")
    texel, face, weights = one_face_per_texel(texel, face, weights)
    points = (mesh.vertices[mesh.faces[face]] * weights[..., None]).sum(dim=1)  # [T, 3, 3] * [T, 3, 1] -> [T, 3]
    return fill_texture(query_colour(colour, points, chunk, device, progress), texel, texture_size)
