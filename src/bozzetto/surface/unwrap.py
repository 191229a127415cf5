"""Triangles → a UV atlas."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import MeshError

PADDING = 3.0  # texels between charts, at least: what bilinear filtering needs
WIDE = 1 / 128  # of the picture's side between charts, lest small mip levels mix them; measured in docs/meshes.md
ROOMY = 0.16  # of the picture's side over the root of the number of charts: no wider, lest many charts become small
FILL = 0.7  # share of the texels that charts cover, roughly


def unwrap(vertices: Tensor, faces: Tensor, texture_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Charts and packing for a texture of ``texture_size``² texels.

    The surface is cut into charts that lie almost flat (:mod:`.atlas.segment`), each is projected onto its plane
    (:mod:`.atlas.flatten`), and the charts are packed as tightly as their outlines allow (:mod:`.atlas.pack`). No face is
    mirrored, no chart covers another, or itself by more than slivers under a texel, and all have the same number of texels per
    area but for the slant of their faces.

    Args:
        vertices: [V, 3]; faces: [F, 3], on the CPU.

    Returns:
        source: [V'], the original vertex of each new vertex (seams double vertices).
        faces: [F, 3] over the new vertices, in the original order.
        uvs: [V', 2] in 0..1, glTF convention ((0, 0) is the top-left corner of the picture).

    Raises:
        MeshError: there are no faces.
    """
    from .atlas.flatten import flatten
    from .atlas.pack import pack

    if len(faces) == 0:
        raise MeshError("a mesh without faces cannot be unwrapped")
    centred = vertices.float() - vertices.float().mean(dim=0)
    unit = centred / centred.abs().amax().clamp_min(1e-30)
    chart, flat, extent = flatten(unit, faces, round(FILL * texture_size**2))
    places = pack(chart, flat, extent, texture_size, chart_padding(texture_size, len(extent)))  # [F, 3, 2]
    key = chart[:, None] * len(vertices) + faces  # a vertex is doubled for each chart that it is in
    source, index = torch.unique(key.reshape(-1), return_inverse=True)
    uvs = torch.zeros(len(source), 2)
    uvs[index] = places.reshape(-1, 2).float()
    return source % len(vertices), index.reshape(-1, 3), uvs.clamp(0, 1)


def chart_padding(texture_size: int, charts: int) -> float:
    """Texels to keep between charts, at least PADDING.

    Mip levels mix what lies closer than their texels are wide, and which level a mesh of some size on the screen is drawn with
    goes with the texture's size: hence a share of the side, and more texels for a larger picture.
    """
    return max(PADDING, texture_size * min(WIDE, ROOMY / math.sqrt(charts)))
