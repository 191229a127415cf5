"""Pictures from all around → the texture of an unwrapped mesh."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Cameras
from ..errors import MeshError
from ..raster.threads import run_tasks, spans
from .coverage import covered_texels

FACING_POWER = 6.0  # the squarest view dominates; lower blurs, higher shows borders between views
MIN_FACING = 0.15  # cosine; flatter views smear
MIN_ALPHA = 0.5


def bake_texture(
    vertices: Tensor,
    normals: Tensor,
    faces: Tensor,
    uvs: Tensor,
    pictures: Tensor,
    depth: Tensor,
    spread: Tensor,
    cameras: Cameras,
    texture_size: int,
    tolerance: float,
) -> Tensor:
    """Blend pictures into a texture [texture_size, texture_size, 3], rgb 0..1, every texel filled.

    Each texel is a point with a normal; each view that sees it (in front, facing, opaque, not behind the depth map by
    more than ``tolerance``) adds its colour, weighted by how squarely it faces and how crisp it is there. Texels that no
    view sees take the colour of the nearest seen surface point; texels between charts take the nearest chart texel, so
    that filtering and mipmaps do not show seams.

    Args:
        vertices, normals: [V, 3]; faces: [F, 3]; uvs: [V, 2], glTF convention. In the cameras' frame. The normals choose the
            views: smooth ones (:func:`.clean.broad_normals`), lest each bump takes its colour from a view of its own.
        pictures: [K, 4, H, W], premultiplied rgb and alpha. depth, spread: [K, h, w], camera z
            (infinity for background) and its standard deviation over a pixel's splats.
        cameras: batch (K,).
        tolerance: length by which the mesh may lie behind the depth map and still count as seen.
    """
    device = pictures.device
    vertices, normals, faces, uvs = (t.to(device) for t in (vertices, normals, faces, uvs))
    texel, face, weights = covered_texels(uvs[faces] * texture_size, texture_size)
    if len(face) == 0:
        raise MeshError("the mesh's UV charts cover no texel; raise the texture size")
    corner = faces[face]  # [T, 3]
    points = (vertices[corner] * weights[..., None]).sum(dim=1)
    directions = F.normalize((normals[corner] * weights[..., None]).sum(dim=1), dim=-1)
    # The nearest depth around a pixel: a texel just beside a nearer part must not catch that part's colour.
    nearest = -F.max_pool2d(-depth.clamp_max(1e6)[:, None], 3, 1, 1)
    maps = torch.cat([nearest, spread[:, None]], dim=1)  # [K, 2, h, w]
    blend = blend_views_cpu if device.type == "cpu" else blend_views
    colour, seen = blend(points, directions, pictures, maps, cameras, tolerance)
    if not bool(seen.any()):
        raise MeshError("no view sees the mesh's surface; the mesh and the pictures do not belong together")
    if not bool(seen.all()):
        colour = _fill_unseen(colour, seen, corner, weights, vertices)
    return fill_texture(colour.clamp(0, 1), texel, texture_size)


def blend_views(
    points: Tensor, normals: Tensor, pictures: Tensor, maps: Tensor, cameras: Cameras, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Colours [T, 3] of surface points and whether any view sees them [T].

    Args:
        points, normals: [T, 3]. pictures: [K, 4, H, W], premultiplied. cameras: batch (K,).
        maps: [K, 2, h, w], depth (finite) and its spread. tolerance: as in :func:`bake_texture`.
    """
    cameras = cameras.to(points.device)
    total = points.new_zeros(len(points), 4)
    loose = points.new_zeros(len(points), 4)
    for i in range(len(cameras)):
        towards = F.normalize(cameras.positions[i] - points, dim=-1)
        facing = (towards * normals).sum(dim=-1)
        index = (facing > MIN_FACING).nonzero()[:, 0]
        position, z = cameras[i].project(points[index])
        grid = (position * 2 - 1)[None, :, None, :]
        rgba = F.grid_sample(pictures[i : i + 1], grid, padding_mode="border", align_corners=False)[0, :, :, 0].T
        hit = F.grid_sample(maps[i : i + 1], grid, mode="nearest", padding_mode="border", align_corners=False)
        hit_depth, hit_spread = hit[0, :, :, 0]
        alpha = rgba[:, 3]
        straight = rgba[:, :3] / alpha.clamp_min(1e-3)[:, None]
        lag = z - hit_depth
        # A slanted surface recedes within the 3x3 pixels that the nearest depth was taken from.
        slack = tolerance / facing[index]
        trust = facing[index] ** FACING_POWER * (alpha > MIN_ALPHA) * alpha**2
        # Networks draw their input views crisply and the rest as fog, which would only blur a crisp view's colours.
        trust = trust / (1 + (hit_spread / tolerance) ** 2)
        sample = torch.cat([straight, torch.ones_like(alpha)[:, None]], dim=1)
        total.index_add_(0, index, sample * (trust * (lag < slack))[:, None])
        loose.index_add_(0, index, sample * (trust * (lag < 3 * slack))[:, None])
    blend = torch.where((total[:, 3:] > 1e-4), total, loose)
    seen = blend[:, 3] > 1e-4
    return blend[:, :3] / blend[:, 3:].clamp_min(1e-8), seen


def blend_views_cpu(
    points: Tensor, normals: Tensor, pictures: Tensor, maps: Tensor, cameras: Cameras, tolerance: float
) -> tuple[Tensor, Tensor]:
    """:func:`blend_views` by compiled loops."""
    from .bake_kernels import blend_texels

    rows = [cameras.positions, cameras.view_matrices()[:, :3].flatten(1), cameras.intrinsics]
    known = [
        points, normals, pictures.movedim(1, -1), maps.movedim(1, -1), torch.cat(rows, dim=1).expand(len(pictures), 19),
    ]  # fmt: skip
    arrays = [t.float().contiguous().numpy() for t in known]
    settings = tuple(np.float32(x) for x in (MIN_FACING, FACING_POWER, MIN_ALPHA))
    colour, seen = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.bool_)
    fixed = (*arrays, np.float32(tolerance), settings)
    run_tasks((blend_texels, *fixed, *span, colour, seen) for span in spans(len(points)))
    return torch.from_numpy(colour), torch.from_numpy(seen)


def _fill_unseen(colour: Tensor, seen: Tensor, corner: Tensor, weights: Tensor, vertices: Tensor) -> Tensor:
    """Give texels that no view sees the colours of their face's corners.

    A vertex has the mean colour of the texels around it that are seen, or else of its nearest neighbours in space that have one.
    """
    from scipy.spatial import cKDTree

    known, share = corner[seen].reshape(-1), weights[seen].reshape(-1).clamp_min(0)
    total = vertices.new_zeros(len(vertices), 4)
    sample = torch.cat([colour[seen], torch.ones_like(colour[seen][:, :1])], dim=1).repeat_interleave(3, dim=0)
    total.index_add_(0, known, sample * share[:, None])
    painted = total[:, 3] > 1e-3
    if not bool(painted.any()):  # a few texels far from any vertex
        total += sample.sum(dim=0)
        painted = torch.ones_like(painted)
    at_vertex = total[:, :3] / total[:, 3:].clamp_min(1e-8)
    used = torch.zeros_like(painted)
    used[corner[~seen].reshape(-1)] = True
    blank = used & ~painted
    if bool(blank.any()):
        places = vertices[painted].cpu().numpy()
        distance, index = cKDTree(places).query(vertices[blank].cpu().numpy(), k=min(4, len(places)))
        distance = torch.from_numpy(distance).reshape(len(distance), -1).to(colour)
        index = torch.from_numpy(index).reshape(len(index), -1).to(colour.device)
        w = 1 / distance.clamp_min(1e-6)
        near = at_vertex[painted][index]  # [B, 4, 3]
        at_vertex[blank] = (near * (w / w.sum(dim=1, keepdim=True))[..., None]).sum(dim=1)
    colour = colour.clone()
    colour[~seen] = (at_vertex[corner[~seen]] * weights[~seen][..., None]).sum(dim=1)
    return colour


def fill_texture(colour: Tensor, texel: Tensor, size: int) -> Tensor:
    """Scatter texels into the picture [size, size, 3] and fill the rest with the nearest filled texel."""
    picture = colour.new_zeros(size * size, 3)
    picture[texel] = colour
    nearest = nearest_filled(texel.cpu(), size).to(texel.device)
    return picture[nearest].reshape(size, size, 3)


def nearest_filled(texel: Tensor, size: int) -> Tensor:
    """The nearest of the texels ``texel`` [T] for every texel of a square, [size * size]; both row * size + column."""
    from .bake_kernels import nearest_rows, nearest_texels

    filled = np.zeros(size * size, np.bool_)
    filled[texel.numpy()] = True
    filled = filled.reshape(size, size)
    row, index = np.empty((size, size), np.int32), np.empty((size, size), np.int64)
    run_tasks((nearest_rows, filled, *span, row) for span in spans(size, max(64, size // 16)))
    run_tasks((nearest_texels, row, *span, index) for span in spans(size, max(16, size // 16)))
    return torch.from_numpy(index).reshape(-1)
