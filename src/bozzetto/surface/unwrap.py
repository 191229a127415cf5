"""Triangles → a UV atlas, with xatlas."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import MeshError

# xatlas grows charts in time that rises faster than the number of faces: blocks of this size are several times quicker
# than one piece (50,000 faces: 3 s instead of 12 s on two cores) and add few seams.
FACES_PER_BLOCK = 6000
PADDING = 3  # texels between charts


def unwrap(vertices: Tensor, faces: Tensor, texture_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Charts and packing for a texture of ``texture_size``² texels.

    Args:
        vertices: [V, 3]; faces: [F, 3], on the CPU.

    Returns:
        source: [V'], the original vertex of each new vertex (seams double vertices).
        faces: [F, 3] over the new vertices, in the original order.
        uvs: [V', 2] in 0..1, glTF convention ((0, 0) is the top-left corner of the picture).
    """
    import xatlas

    if len(faces) == 0:
        raise MeshError("a mesh without faces cannot be unwrapped")
    # Unit size: xatlas drops faces that are small in absolute terms.
    v = (vertices - vertices.mean(dim=0)).numpy().astype(np.float32)
    v /= max(float(np.abs(v).max()), 1e-30)
    f = faces.numpy()
    atlas = xatlas.Atlas()
    blocks, used = _blocks(v[f].mean(axis=1)), []
    for block in blocks:
        mine, local = np.unique(f[block], return_inverse=True)
        atlas.add_mesh(v[mine], local.reshape(-1, 3).astype(np.uint32))
        used.append(mine)
    pack = xatlas.PackOptions()
    pack.resolution, pack.padding, pack.bilinear = texture_size, PADDING, True
    atlas.generate(xatlas.ChartOptions(), pack)
    out_faces = np.empty_like(f)
    sources, uvs, offset = [], [], 0
    for i, block in enumerate(blocks):
        mapping, local, uv = atlas.get_mesh(i)
        out_faces[block] = local.astype(np.int64) + offset
        sources.append(used[i][mapping])
        uvs.append(uv)
        offset += len(mapping)
    return (
        torch.from_numpy(np.concatenate(sources)).long(),
        torch.from_numpy(out_faces),
        torch.from_numpy(np.concatenate(uvs).astype(np.float32)).clamp(0, 1),
    )


def _blocks(centres: np.ndarray) -> list[np.ndarray]:
    """Face indices in boxes of at most FACES_PER_BLOCK, by halving the longest side at the median."""
    todo, done = [np.arange(len(centres))], []
    while todo:
        block = todo.pop()
        if len(block) <= FACES_PER_BLOCK:
            done.append(np.sort(block))
            continue
        axis = int(np.ptp(centres[block], axis=0).argmax())
        order = block[np.argsort(centres[block, axis], kind="stable")]
        todo += [order[: len(order) // 2], order[len(order) // 2 :]]
    return done
