"""Pictures from all around → the texture of an unwrapped mesh."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..camera import Cameras
from ..errors import MeshError
from .coverage import covered_pixels

FACING_POWER = 2.0  # the squarest view dominates; lower blurs, higher shows borders between views
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
        vertices, normals: [V, 3]; faces: [F, 3]; uvs: [V, 2], glTF convention. In the cameras' frame.
        pictures: [K, 4, H, W], premultiplied rgb and alpha. depth, spread: [K, h, w], camera z
            (infinity for background) and its standard deviation over a pixel's splats.
        cameras: batch (K,).
        tolerance: length by which the mesh may lie behind the depth map and still count as seen.
    """
    device = pictures.device
    vertices, normals, faces, uvs = (t.to(device) for t in (vertices, normals, faces, uvs))
    face, texel, weights = covered_pixels(uvs[faces] * texture_size, texture_size, texture_size)
    if len(face) == 0:
        raise MeshError("the mesh's UV charts cover no texel; raise the texture size")
    texel, face, weights = one_face_per_texel(texel, face, weights)
    corner = faces[face]  # [T, 3]
    points = (vertices[corner] * weights[..., None]).sum(dim=1)
    directions = F.normalize((normals[corner] * weights[..., None]).sum(dim=1), dim=-1)
    colour, seen = _blend_views(points, directions, pictures, depth, spread, cameras, tolerance)
    if not bool(seen.any()):
        raise MeshError("no view sees the mesh's surface; the mesh and the pictures do not belong together")
    colour = _fill_unseen(points, colour, seen)
    return fill_texture(colour.clamp(0, 1), texel, texture_size)


def one_face_per_texel(texel: Tensor, face: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keep one face for texels on a shared edge."""
    owner = torch.full((int(texel.max()) + 1,), -1, dtype=torch.long, device=texel.device)
    owner.scatter_reduce_(0, texel, torch.arange(len(texel), device=texel.device), "amax")
    keep = owner[owner >= 0]
    return texel[keep], face[keep], weights[keep]


def _blend_views(
    points: Tensor,
    normals: Tensor,
    pictures: Tensor,
    depth: Tensor,
    spread: Tensor,
    cameras: Cameras,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Colours [T, 3] of surface points and whether any view sees them [T]."""
    cameras = cameras.to(points.device)
    # The nearest depth around a pixel: a texel just beside a nearer part must not catch that part's colour.
    nearest = -F.max_pool2d(-depth.clamp_max(1e6)[:, None], 3, 1, 1)
    maps = torch.cat([nearest, spread[:, None]], dim=1)  # [K, 2, h, w]
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


def _fill_unseen(points: Tensor, colour: Tensor, seen: Tensor) -> Tensor:
    """Give unseen surface points the colour of their nearest seen neighbours in space."""
    if bool(seen.all()):
        return colour
    from scipy.spatial import cKDTree

    known = points[seen].cpu().numpy()
    distance, index = cKDTree(known).query(points[~seen].cpu().numpy(), k=min(4, len(known)))
    distance = torch.from_numpy(distance).reshape(len(distance), -1).to(colour)
    index = torch.from_numpy(index).reshape(len(index), -1).to(colour.device)
    w = 1 / distance.clamp_min(1e-6)
    colour = colour.clone()
    colour[~seen] = (colour[seen][index] * (w / w.sum(dim=1, keepdim=True))[..., None]).sum(dim=1)
    return colour


def fill_texture(colour: Tensor, texel: Tensor, size: int) -> Tensor:
    """Scatter texels into the picture and fill the rest with the nearest filled texel."""
    from scipy import ndimage

    empty = torch.ones(size * size, dtype=torch.bool, device=texel.device)
    empty[texel] = False
    picture = colour.new_zeros(size * size, 3)
    picture[texel] = colour
    rows, columns = ndimage.distance_transform_edt(
        empty.reshape(size, size).cpu().numpy(), return_distances=False, return_indices=True
    )
    nearest = torch.from_numpy(rows.astype("int64") * size + columns).to(texel.device)
    return picture[nearest.reshape(-1)].reshape(size, size, 3)
