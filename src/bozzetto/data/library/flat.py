"""One object of a dataset as flat arrays, ready to be laid beside others: :class:`FlatAsset`.

Its pictures stay with the shard; several objects may wear one, so it is named by :class:`PictureKey` and decoded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..assets.asset_object import AssetObject
from ..assets.scene import SmoothNormals, colour_picture

MAX_JOINTS = 1 << 15


class PictureKey(NamedTuple):
    """A picture of a shard: the shard's place in its dataset, the blob, and whether its alpha is to be ignored."""

    dataset: int
    shard: int
    blob: int
    opaque: bool


@dataclass
class FlatClip:
    """One animation, frame by frame. One of the two arrays is empty.

    Attributes:
        name: of the clip. fps: frames per second. motion: how far vertices move (see the dataset's record).
        matrices: [T, J, 12] float32, the upper three rows of each joint's matrix; joint 0 never moves.
        points: [T, V, 3] float32.
    """

    name: str
    fps: float
    motion: float
    matrices: NDArray[np.float32]
    points: NDArray[np.float32]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return max(len(self.matrices), len(self.points))


@dataclass
class FlatAsset:
    """One object; indices start at 0 within it.

    A corner's normal is the sum of the areas (as vectors) of the triangles of its *group*, whatever the pose; who belongs
    to a group was decided at rest (:class:`~bozzetto.data.assets.scene.SmoothNormals`).

    Attributes:
        vertices: [V, 3] float32, house frame. joints: [V, 4] int16, weights: [V, 4] uint8 that sum to 255; joint 0 is still.
        faces: [F, 3] int32. uvs: [F, 3, 2] float32. material: [F] int32. groups: [F, 3] int32, group of each corner.
        members: [P, 2] int32: group, triangle. group_count: number of groups.
        colours: [M, 3] float32. pictures: per material a key, a picture [h, w, 4] of its own, or None for plain white.
        clips: see :class:`FlatClip`.
    """

    name: str
    vertices: NDArray[np.float32]
    joints: NDArray[np.int16]
    weights: NDArray[np.uint8]
    faces: NDArray[np.int32]
    uvs: NDArray[np.float32]
    material: NDArray[np.int32]
    groups: NDArray[np.int32]
    members: NDArray[np.int32]
    group_count: int
    colours: NDArray[np.float32]
    pictures: list[PictureKey | NDArray[np.uint8] | None]
    clips: list[FlatClip] = field(default_factory=list)


def corner_groups(vertices: NDArray, faces: NDArray) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Corners that share a normal: group of each corner [F, 3], members [P, 2] (group, triangle), number of groups."""
    if not len(faces):
        return np.zeros((0, 3), np.int32), np.zeros((0, 2), np.int32), 0
    mix = SmoothNormals(vertices, faces).mix  # [3 F corners, F triangles], no row is empty
    with np.errstate(over="ignore"):  # two rows are alike if the sums of their triangles' random numbers are
        number = np.random.default_rng(0).integers(0, 1 << 63, len(faces), dtype=np.uint64)
        mark = np.add.reduceat(number[mix.indices], mix.indptr[:-1])
    _, first, group = np.unique(mark, return_index=True, return_inverse=True)
    size = np.diff(mix.indptr)[first]
    place = np.arange(size.sum()) + np.repeat(mix.indptr[first] - (np.cumsum(size) - size), size)
    members = np.stack([np.repeat(np.arange(len(first)), size), mix.indices[place]], -1)
    return group.reshape(-1, 3).astype(np.int32), members.astype(np.int32), len(first)


def flatten_asset(
    obj: AssetObject, motions: list[float], blobs: list[PictureKey], most_frames: int = 1 << 30
) -> FlatAsset:
    """Make ``obj`` flat.

    Args:
        motions: of its clips, from its record.
        blobs: keys of ``obj.textures``, with ``opaque`` false.
        most_frames: clips with more keep this many, spread evenly.
    """
    first = np.cumsum([0] + [len(p.vertices) for p in obj.parts])
    vertices = np.concatenate([p.vertices for p in obj.parts]).astype(np.float32)
    faces = np.concatenate([p.faces + start for p, start in zip(obj.parts, first)]).astype(np.int32)
    joints = np.zeros((len(vertices), 4), np.int16)
    weights = np.zeros((len(vertices), 4), np.uint8)
    weights[:, 0] = 255
    skinned = any(c.matrices is not None for c in obj.clips)
    pictures: list[PictureKey | NDArray[np.uint8] | None] = []
    uvs = []
    for part, start in zip(obj.parts, first):
        own = slice(start, start + len(part.vertices))
        if skinned and part.joints is not None:
            share = np.rint(part.weights * 255).astype(np.int64)
            share[:, 0] += 255 - share.sum(1)  # columns are whole numbers already, but for other datasets' sakes
            joints[own], weights[own] = part.joints + 1, share.clip(0, 255)
        if part.texture is not None and part.uvs is not None:
            blind = part.alpha == "opaque" and bool(obj.textures[part.texture][..., 3].min() < 255)
            pictures.append(blobs[part.texture]._replace(opaque=blind))
            uvs.append(part.uvs[part.faces])
        elif part.colours is not None and len(part.faces):
            picture, corners = colour_picture(part)
            pictures.append(picture)
            uvs.append(corners)
        else:
            pictures.append(None)
            uvs.append(np.zeros((len(part.faces), 3, 2), np.float32))
    groups, members, count = corner_groups(vertices, faces)
    clips = []
    for clip, motion in zip(obj.clips, motions):
        still_points, still_rows = np.zeros((0, len(vertices), 3), np.float32), np.zeros((0, 0, 12), np.float32)
        total = len(clip.matrices if clip.matrices is not None else clip.positions[0])
        kept = np.linspace(0, total - 1, min(total, most_frames)).round().astype(int)
        if clip.matrices is not None:
            rows = clip.matrices[kept, :, :3].reshape(len(kept), -1, 12)  # [T, J, 3, 4] -> [T, J, 12]
            still = np.broadcast_to(np.eye(4, dtype=np.float32)[:3].reshape(12), (len(kept), 1, 12))
            made = (np.concatenate([still, rows], 1).astype(np.float32), still_points)
        else:
            made = (still_rows, np.concatenate([p[kept] for p in clip.positions], 1).astype(np.float32))
        clips.append(FlatClip(clip.name, clip.fps, motion, *made))
    return FlatAsset(
        obj.name,
        vertices,
        joints,
        weights,
        faces,
        np.concatenate(uvs).astype(np.float32),
        np.repeat(np.arange(len(obj.parts), dtype=np.int32), [len(p.faces) for p in obj.parts]),
        groups,
        members,
        count,
        np.array([p.colour for p in obj.parts], np.float32).reshape(-1, 3),
        pictures,
        clips,
    )
