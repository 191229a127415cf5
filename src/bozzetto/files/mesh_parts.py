"""Joining the parts of a third-party file (one per material) into one mesh with one texture or vertex colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MeshError
from ..mesh import Mesh
from .glb import linear_to_srgb, srgb_to_linear
from .images import resize_image

MAX_ATLAS = 8192  # pixels on a side; larger atlases are scaled down
MAX_REPEATS = 16  # a texture that repeats more often along one axis is wrapped per vertex
_MARGIN = 2  # pixels around a tile that repeat its edge, so that filtering does not reach its neighbour


@dataclass
class Part:
    """Triangles of one material.

    Attributes:
        vertices [V, 3], faces [F, 3], normals [V, 3] or None, uvs [V, 2] (top-left origin) or None.
        colors: [V, 3] linear vertex colours, or None.
        base: [3] linear colour that multiplies texture and vertex colours.
        texture: [H, W, 3] sRGB, or None; parts with one picture share the tensor.
    """

    vertices: Tensor
    faces: Tensor
    normals: Tensor | None
    uvs: Tensor | None
    colors: Tensor | None
    base: Tensor
    texture: Tensor | None


def join_parts(parts: list[Part]) -> Mesh:
    """One mesh of all parts.

    Parts with different pictures or colours get one atlas if any of them has a picture, else vertex colours. Under a
    picture, vertex colours are dropped (a part without a picture keeps the mean of its colours).
    """
    if not any(len(p.faces) for p in parts):
        raise MeshError("the file has no triangles")
    parts = [p for p in parts if len(p.faces)]
    vertices = torch.cat([p.vertices for p in parts])
    faces, first = [], 0
    for p in parts:
        faces.append(p.faces + first)
        first += len(p.vertices)
    normals = None
    if any(p.normals is not None for p in parts):
        filled = [
            p.normals if p.normals is not None else Mesh(p.vertices, p.faces).with_normals().normals for p in parts
        ]
        normals = torch.cat(filled)
    uvs = colors = texture = None
    if any(p.texture is not None and p.uvs is not None for p in parts):
        uvs, texture = _join_textures(parts)
    else:
        if all(p.uvs is not None for p in parts):
            uvs = torch.cat([p.uvs for p in parts])
        if any(p.colors is not None or bool((p.base != 1).any()) for p in parts):
            colors = torch.cat([_linear_colors(p) for p in parts])
            colors = linear_to_srgb(colors.clamp(0, 1))
    return Mesh(vertices, torch.cat(faces), normals, uvs, colors, texture)


def _linear_colors(part: Part) -> Tensor:
    colors = part.colors if part.colors is not None else torch.ones_like(part.vertices)
    return colors * part.base


def _key(part: Part) -> tuple:
    """What decides the look of a textured part; parts of one key share a tile."""
    if part.texture is None or part.uvs is None:
        return (None, tuple(_linear_colors(part).mean(dim=0).tolist()))
    return (id(part.texture), tuple(part.base.tolist()))


def _tile(part: Part) -> Tensor:
    """The part's own picture [h, w, 3] with its base colour multiplied in, sRGB."""
    if part.texture is None or part.uvs is None:
        return linear_to_srgb(_linear_colors(part).mean(dim=0).clamp(0, 1)).expand(4, 4, 3)
    if bool((part.base == 1).all()):
        return part.texture
    return linear_to_srgb((srgb_to_linear(part.texture) * part.base).clamp(0, 1))


def _join_textures(parts: list[Part]) -> tuple[Tensor, Tensor]:
    """(uvs [V, 2], texture [H, W, 3]) of all parts together."""
    groups: dict[tuple, list[int]] = {}
    for i, p in enumerate(parts):
        groups.setdefault(_key(p), []).append(i)
    if len(groups) == 1:
        return torch.cat([p.uvs for p in parts]), _tile(parts[0])
    uvs: list[Tensor] = [torch.full((len(p.vertices), 2), 0.5) for p in parts]
    tiles = []
    for members in groups.values():
        tile = _tile(parts[members[0]])
        if parts[members[0]].texture is not None and parts[members[0]].uvs is not None:
            tile = _unroll([parts[i] for i in members], tile, uvs, members)
        tiles.append(tile)
    atlas, places = _pack(tiles)
    size = torch.tensor([atlas.shape[1], atlas.shape[0]], dtype=torch.float32)
    for members, (x, y, width, height) in zip(groups.values(), places):
        for i in members:
            uvs[i] = (uvs[i] * torch.tensor([width, height]) + torch.tensor([x, y])) / size
    return torch.cat(uvs), atlas


def _unroll(parts: list[Part], tile: Tensor, uvs: list[Tensor], members: list[int]) -> Tensor:
    """Repeat a tile as often as its parts do, and set their ``uvs`` to 0..1 of the result."""
    together = torch.cat([p.uvs for p in parts])
    low = torch.floor(together.amin(dim=0) + 1e-4)
    high = torch.maximum(torch.ceil(together.amax(dim=0) - 1e-4), low + 1)
    repeats = (high - low).long().tolist()  # along u, v
    wraps = max(repeats) > MAX_REPEATS
    if wraps:
        repeats = [1, 1]
    for i, p in zip(members, parts):
        moved = p.uvs - torch.floor(p.uvs) if wraps else (p.uvs - low) / torch.tensor(repeats)
        uvs[i] = moved.clamp(0, 1)
    shrink = min(1.0, MAX_ATLAS / 2 / max(tile.shape[1] * repeats[0], tile.shape[0] * repeats[1]))
    if shrink < 1:
        tile = resize_image(tile, (max(1, int(tile.shape[0] * shrink)), max(1, int(tile.shape[1] * shrink))))
    return tile.repeat(repeats[1], repeats[0], 1)


def _pack(tiles: list[Tensor]) -> tuple[Tensor, list[tuple[int, int, int, int]]]:
    """Place tiles on shelves: the atlas [H, W, 3] and each tile's (x, y, width, height) in it, without its margin."""
    while True:
        sizes = [(t.shape[1] + 2 * _MARGIN, t.shape[0] + 2 * _MARGIN) for t in tiles]
        area = sum(w * h for w, h in sizes)
        width = max(max(w for w, _ in sizes), int(area**0.5 * 1.05))
        x = y = shelf = 0
        corners: dict[int, tuple[int, int]] = {}
        for i in sorted(range(len(tiles)), key=lambda i: -sizes[i][1]):
            if x + sizes[i][0] > width:
                x, y, shelf = 0, y + shelf, 0
            corners[i] = (x, y)
            x, shelf = x + sizes[i][0], max(shelf, sizes[i][1])
        height = y + shelf
        if max(width, height) <= MAX_ATLAS or max(max(t.shape[:2]) for t in tiles) <= 4:
            break
        tiles = [resize_image(t, (max(1, t.shape[0] // 2), max(1, t.shape[1] // 2))) for t in tiles]
    atlas = torch.zeros(height, width, 3)
    places = []
    for i, tile in enumerate(tiles):
        x, y = corners[i]
        w, h = sizes[i]
        rows = (torch.arange(h) - _MARGIN).clamp(0, tile.shape[0] - 1)
        columns = (torch.arange(w) - _MARGIN).clamp(0, tile.shape[1] - 1)
        atlas[y : y + h, x : x + w] = tile[rows][:, columns]
        places.append((x + _MARGIN, y + _MARGIN, tile.shape[1], tile.shape[0]))
    return atlas, places
