"""Second stage: the mesh's vertices and the colour field are fitted to pictures of the Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.render.visibility import visible_faces
from ...gaussians import Gaussians
from ..clean import keep_large_components, taubin_smooth, unique_edges
from ..simplify import make_manifold
from .adam import Adam
from .edges import Topology, antialias, barycentric, centres, project
from .field import NerfField
from .hash_grid import by_triton
from .recorded_step import RecordedStep
from .settings import NerfSettings
from .train import View, stream_views

OFFSET_RATE, COLOUR_RATE = 1e-4, 1e-3
ALPHA_WEIGHT, NORMAL_WEIGHT, OFFSET_WEIGHT = 0.1, 0.001, 0.1
RADIUS = 1.5
SMOOTHING = 5  # rounds at the end: each vertex hears of its own few pixels only, and their noise is not the object's


def draw(vertices: Tensor, topology: Topology, field: NerfField, camera: Tensor, face: Tensor) -> Tensor:
    """Premultiplied rgb and alpha [H, W, 4] of a mesh coloured by the field, with smooth outlines.

    Args:
        vertices: [N, 3]; get gradients from the outlines. camera: [20], see ``camera_table``. face: [H, W], visible faces.
    """
    height, width = face.shape
    screen, inverse = project(vertices, camera)
    with torch.no_grad():
        pixel = (face.reshape(-1) >= 0).nonzero()[:, 0]
        corner = topology.faces[face.reshape(-1)[pixel]]
        weights, _ = barycentric(screen[corner], inverse[corner], centres(pixel, width))
        points = (vertices[corner] * weights[..., None]).sum(dim=1)  # [P, 3, 3] * [P, 3, 1] -> [P, 3]
    colour = field.colour(points)
    rgba = torch.cat([colour, torch.ones_like(colour[:, :1])], dim=1)
    picture = rgba.new_zeros(height * width, 4).index_copy(0, pixel, rgba).reshape(height, width, 4)
    return antialias(picture, face, screen, inverse, topology)


def normal_consistency(vertices: Tensor, topology: Topology) -> Tensor:
    """Mean of |1 - cosine| between the normals of faces that share an edge."""
    # index_select: its gradient is added in place, that of indexing is sorted first.
    corners = vertices.index_select(0, topology.faces.reshape(-1))
    a, b, c = corners.reshape(-1, 3, 3).unbind(dim=1)  # [3F, 3] -> [F, 3, 3]
    normals = F.normalize(torch.linalg.cross(b - a, c - a, dim=-1), dim=-1, eps=1e-12)
    first, second = normals.index_select(0, topology.pairs.reshape(-1)).reshape(-1, 2, 3).unbind(dim=1)
    return (1 - (first * second).sum(dim=-1)).abs().mean()


def relax(vertices: Tensor, faces: Tensor, rounds: int = 3) -> Tensor:
    """Move vertices along the surface towards the mean of their neighbours, so that triangles stay regular. On the CPU."""
    a, b = unique_edges(faces)[0].unbind(dim=1)
    degree = torch.bincount(torch.cat([a, b]), minlength=len(vertices)).clamp_min(1)[:, None]
    for _ in range(rounds):
        corners = vertices[faces]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
        normals = torch.zeros_like(vertices).index_add_(0, faces.reshape(-1), normal.repeat_interleave(3, dim=0))
        normals = F.normalize(normals, dim=-1, eps=1e-20)
        mean = torch.zeros_like(vertices).index_add_(0, a, vertices[b]).index_add_(0, b, vertices[a]) / degree
        step = mean - vertices
        vertices = vertices + 0.5 * (step - normals * (step * normals).sum(dim=-1, keepdim=True))
    return vertices


def tidy(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Regular triangles, no small parts, nothing that is not manifold. On the CPU."""
    vertices, faces = keep_large_components(vertices, faces)
    return make_manifold(relax(vertices, faces), faces)


def refine_mesh(
    vertices: Tensor,
    faces: Tensor,
    field: NerfField,
    gaussians: Gaussians,
    settings: NerfSettings,
    generator: torch.Generator,
    progress: Callable[[float], None],
) -> tuple[Tensor, Tensor]:
    """Vertices [V, 3] and faces [F, 3] (CPU, field's frame) whose outlines fit the pictures; trains ``field``'s colours, too.

    Raises:
        MeshError: nothing is left of the mesh.
    """
    s = settings
    if not s.refine_steps:
        return vertices, faces
    rounds, faster = s.refine_rounds + 1, s.rate_scale("refine")
    views = stream_views(gaussians, s.refine_steps, s.refine_size, generator, s.elevation, (RADIUS, RADIUS), s.hardness)
    for k in range(rounds):
        first, last = s.refine_steps * k // rounds, s.refine_steps * (k + 1) // rounds
        if k:
            vertices, faces = tidy(vertices, faces)
        vertices = _fit(
            vertices,
            faces,
            field,
            views,
            range(first, last),
            (OFFSET_RATE * s.vertex_rate_scale(), faster * COLOUR_RATE / 2**k),
            s.refine_size,
            gaussians.device,
            lambda i: progress((i + 1) / s.refine_steps),
        )
    vertices, faces = keep_large_components(vertices, faces)
    return make_manifold(taubin_smooth(vertices, faces, SMOOTHING), faces)


def _fit(
    vertices: Tensor,
    faces: Tensor,
    field: NerfField,
    views: Iterator[View],
    steps: range,
    rates: tuple[float, float],
    size: int,
    device: torch.device,
    progress: Callable[[int], None],
) -> Tensor:
    """The moved vertices [V, 3] (CPU) after ``steps`` of one optimiser, whose ``rates`` are those of vertices and colours."""
    base, topology = vertices.to(device), Topology.of(faces.to(device))
    offset = torch.zeros_like(base, requires_grad=True)
    colours = [field.colour_grid.table, *field.colour_network.parameters()]
    optimizer = Adam(([offset], rates[0]), (colours, rates[1]))
    picture = _drawing(topology, field, size) if by_triton(device) else None

    def step(row: Tensor, rgb: Tensor, alpha: Tensor, face: Tensor | None = None) -> None:
        moved = base + offset
        rgba = draw(moved, topology, field, row, face) if picture is None else picture(moved, row)
        made = rgba[..., :3] + (1 - rgba[..., 3:])
        loss = F.mse_loss(made, rgb) + ALPHA_WEIGHT * F.mse_loss(rgba[..., 3], alpha)
        loss = loss + NORMAL_WEIGHT * normal_consistency(moved, topology)
        loss = loss + OFFSET_WEIGHT * offset.square().sum(dim=-1).mean()
        optimizer.clear()
        loss.backward()
        optimizer.step()

    run = RecordedStep(step, device) if picture is not None else step
    for i in steps:
        view = next(views)
        if picture is None:
            face = visible_faces((base + offset).detach(), topology.faces, view.cameras, view.alpha.shape)[0]
            run(view.row, view.rgb, view.alpha, face)
        else:
            run(view.row, view.rgb, view.alpha)
        progress(i)
    optimizer.clear()  # gradients lie in the recorded step's memory
    return (base + offset.detach()).cpu()


def _drawing(topology: Topology, field: NerfField, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """(vertices, camera row) -> picture, by the Triton kernels."""
    from .draw_triton import Canvas

    canvas = Canvas(topology, size)
    return lambda vertices, row: canvas.draw(vertices, field, row)
