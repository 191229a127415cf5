"""Objects of a library in poses, as a scene: all of it on the library's device, nothing that makes the host wait.

Which rows of which table are needed is known to the host (:class:`Ranges`); it sends the device a few numbers per object.
Skinning is linear blending; an object at rest takes the same way, with identities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..render import SceneBatch

if TYPE_CHECKING:
    from .store import AssetLibrary


@dataclass(frozen=True)
class Pose:
    """An object of a library (by number), at rest or in a frame of one of its clips."""

    number: int
    clip: int | None = None
    frame: int = 0


class Ranges:
    """Rows of a table that belong to each object: ``start[i]`` and ``count[i]``."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.count = np.array(counts, np.int64)
        self.start = np.cumsum(self.count) - self.count


def upload(values: NDArray, device: torch.device) -> Tensor:
    """A small host array on the device, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class _Rows:
    """The rows ``start[b] .. start[b] + count[b]`` of a table for each object b of a batch, one behind the other.

    Attributes:
        total: number of rows. owner: [total] int64, b. index: [total] int64, rows of the table.
        first: [B + 1] int64 on the device, where each object's rows begin in the batch.
    """

    def __init__(self, start: NDArray, count: NDArray, device: torch.device) -> None:
        self.total = int(count.sum())
        first = np.concatenate([[0], np.cumsum(count)])
        small = upload(np.stack([start, count, first[:-1]]), device)
        batch = torch.arange(len(start), device=device)
        self.owner = torch.repeat_interleave(batch, small[1], output_size=self.total)
        shift = (small[0] - small[2]).index_select(0, self.owner)
        self.index = torch.arange(self.total, device=device) + shift
        self.first = upload(first, device)


def make_scene(
    library: AssetLibrary, poses: Sequence[Pose], radius: float = 0.6, tints: Tensor | None = None
) -> SceneBatch:
    """The posed objects as a :class:`SceneBatch` of :func:`~bozzetto.data.render.render_objects`.

    Each is moved so that the middle of its box is the origin, and scaled to a bounding sphere of ``radius``. Frames are those
    of the clip as stored. The scene's ``texels`` are the library's own; do not write to them.

    Args:
        tints: [B, 3] in 0..1, what the colours of each object's picture-less materials are multiplied with; None: nothing.

    Raises:
        IndexError: no such object, clip or frame.
    """
    lib, device = library, library.device
    numbers = np.array([p.number for p in poses], np.int64)
    if len(numbers) == 0 or numbers.min() < 0 or numbers.max() >= len(lib):
        raise IndexError(f"poses name objects outside 0..{len(lib) - 1}")
    point_start, matrix_start = lib.ranges["vertices"].start[numbers].copy(), np.zeros(len(poses), np.int64)
    for b, pose in enumerate(poses):
        if pose.clip is None:
            continue
        clip = lib.clips[pose.number][pose.clip]
        if not 0 <= pose.frame < clip.frames:
            raise IndexError(f"clip {clip.name} of {lib.names[pose.number]} has no frame {pose.frame}")
        (point_start if clip.moves_points else matrix_start)[b] = clip.start + pose.frame * clip.stride

    def rows(name: str) -> _Rows:
        return _Rows(lib.ranges[name].start[numbers], lib.ranges[name].count[numbers], device)

    own, face, member, material = (rows(n) for n in ("vertices", "faces", "members", "materials"))
    counts = lib.ranges["vertices"].count[numbers]
    base = upload(np.stack([point_start - np.cumsum(counts) + counts, matrix_start]), device)  # [2, B]
    base = base.index_select(1, own.owner)  # [2, V]
    vertices = lib.points.index_select(0, torch.arange(own.total, device=device) + base[0])
    joints = lib.joints.index_select(0, own.index).long() + base[1][:, None]  # [V, 4]
    weights = lib.weights.index_select(0, own.index).float() / 255
    mixed = torch.zeros(own.total, 12, device=device)
    for k in range(joints.shape[1]):
        mixed += weights[:, k, None] * lib.matrices.index_select(0, joints[:, k])
    mixed = mixed.view(-1, 3, 4)
    vertices = (mixed[..., :3] * vertices[:, None]).sum(-1) + mixed[..., 3]
    vertices = _fitted(vertices, own.owner, len(poses), radius)

    faces = lib.faces.index_select(0, face.index) + own.first[face.owner][:, None].to(torch.int32)
    group_total = int(lib.group_counts[numbers].sum())
    group_first = upload(np.cumsum(lib.group_counts[numbers]) - lib.group_counts[numbers], device)
    corners = vertices[faces.long()]  # [F, 3, 3]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    pairs = lib.members.index_select(0, member.index).long()  # [P, 2]
    group = pairs[:, 0] + group_first[member.owner]
    triangle = pairs[:, 1] + face.first[member.owner]
    sums = torch.zeros(group_total, 3, device=device).index_add_(0, group, areas[triangle])
    normals = sums / sums.norm(dim=-1, keepdim=True).clamp_min(1e-20)
    normals = normals[lib.groups.index_select(0, face.index).long() + group_first[face.owner][:, None]]  # [F, 3, 3]
    colours = lib.colours.index_select(0, material.index)
    if tints is not None:
        plain = lib.plain.index_select(0, material.index)[:, None]
        colours = torch.where(plain, colours * tints.to(device)[material.owner], colours)
    return SceneBatch(
        vertices=vertices,
        faces=faces,
        uvs=lib.uvs.index_select(0, face.index),
        normals=normals,
        material=lib.material.index_select(0, face.index) + material.first[face.owner].to(torch.int32),
        face_object=face.owner.to(torch.int32),
        texels=lib.texels,
        levels=lib.levels.index_select(0, material.index),
        sizes=lib.sizes.index_select(0, material.index),
        base_colors=colours,
        face_start=face.first,
        vertex_start=own.first,
        names=tuple(lib.names[p.number] for p in poses),
    )


def boxes(points: Tensor, owner: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest coordinates [batch, C] of the points [N, C] of each owner [N]."""
    at = owner[:, None].expand_as(points)
    shape = (batch, points.shape[1])
    low = points.new_full(shape, torch.inf).scatter_reduce_(0, at, points, "amin")
    return low, points.new_full(shape, -torch.inf).scatter_reduce_(0, at, points, "amax")


def _fitted(vertices: Tensor, owner: Tensor, batch: int, radius: float) -> Tensor:
    low, high = boxes(vertices, owner, batch)
    vertices = vertices - ((low + high) / 2).index_select(0, owner)
    _, reach = boxes(vertices.norm(dim=-1, keepdim=True), owner, batch)
    return vertices * (radius / reach.clamp_min(1e-12)).index_select(0, owner)
