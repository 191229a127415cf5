"""From a collection's own units to the house frame, and the part of space an object takes over all its clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pose import skin
from .source_object import Clip, Part, SourceObject

_FRAMES = 24  # frames of a skinned clip that are looked at
Points = NDArray[np.float32]


def turn_about_y(degrees: float) -> NDArray[np.float64]:
    """[4, 4]; 90 degrees takes +z to +x."""
    angle = np.deg2rad(degrees)
    out = np.eye(4)
    out[0, 0] = out[2, 2] = np.cos(angle)
    out[0, 2] = np.sin(angle)
    out[2, 0] = -np.sin(angle)
    return out


def used_vertices(part: Part) -> Points:
    """[U, 3], the vertices that faces name."""
    return part.vertices[np.unique(part.faces)] if len(part.faces) else part.vertices[:0]


def rest_points(obj: SourceObject) -> Points:
    """[N, 3], all used vertices at rest."""
    return np.concatenate([used_vertices(p) for p in obj.parts] or [np.zeros((0, 3), np.float32)])


def clip_points(obj: SourceObject, clip: Clip) -> Points:
    """[T, N, 3], all used vertices in T frames (at most 24) spread over the clip."""
    frames = len(clip.matrices if clip.matrices is not None else clip.positions[0])
    chosen = np.unique(np.linspace(0, frames - 1, min(frames, _FRAMES)).round().astype(int))
    out = []
    for index, part in enumerate(obj.parts):
        if not len(part.faces):
            continue
        if clip.positions is not None:
            out.append(clip.positions[index][chosen][:, np.unique(part.faces)])
        elif part.joints is not None:
            kept = np.unique(part.faces)
            out.append(skin(part.vertices[kept], part.joints[kept], part.weights[kept], clip.matrices[chosen]))
        else:
            still = used_vertices(part)
            out.append(np.broadcast_to(still, (len(chosen), *still.shape)))
    return np.concatenate(out, axis=1) if out else np.zeros((len(chosen), 0, 3), np.float32)


def motion(points: Points) -> float:
    """How far vertices move: root mean square distance from their own mean place, over all of [T, N, 3]."""
    away = points.astype(np.float64) - points.mean(0, dtype=np.float64)
    return float(np.sqrt((away * away).sum(-1).mean())) if away.size else 0.0


def bounding_sphere(points: NDArray) -> tuple[NDArray[np.float64], float]:
    """Centre of the box around ``points`` [N, 3], N > 0, and the largest distance from it."""
    points = np.asarray(points, np.float64)
    centre = (points.min(0) + points.max(0)) / 2
    return centre, float(np.linalg.norm(points - centre, axis=1).max())


@dataclass
class Placement:
    """Where an object goes.

    Attributes:
        matrix: [4, 4], own units -> house frame.
        rest: the sphere (x, y, z, r) of the object at rest, in the house frame.
        motions: per clip how far vertices move (:func:`motion`), in units of the house frame.
    """

    matrix: NDArray[np.float64]
    rest: tuple[float, float, float, float]
    motions: list[float]


def placement(obj: SourceObject, turn: float = 0.0) -> Placement:
    """Where ``obj`` goes: all frames of all clips, and the object at rest, into the unit sphere.

    Args:
        turn: degrees about the y axis that bring its front to +z.
    """
    rest = rest_points(obj)
    moving = [clip_points(obj, clip) for clip in obj.clips]
    centre, radius = bounding_sphere(np.concatenate([rest, *(m.reshape(-1, 3) for m in moving)]))
    scale = 1 / max(radius, 1e-30)
    matrix = np.eye(4)
    matrix[:3, :3] *= scale
    matrix[:3, 3] = -centre * scale
    matrix = turn_about_y(turn) @ matrix
    middle, reach = bounding_sphere(rest)
    middle = matrix[:3, :3] @ middle + matrix[:3, 3]
    sphere = (*(round(float(x), 5) for x in middle), round(reach * scale, 5))
    return Placement(matrix, sphere, [round(motion(m) * scale, 5) for m in moving])


def move_points(points: NDArray, matrix: NDArray) -> Points:
    """[..., 3] moved by [4, 4], float32."""
    return (np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


def move_clip(clip: Clip, matrix: NDArray) -> Clip:
    """The clip of an object that was moved by ``matrix`` [4, 4] (turn, uniform scale and shift)."""
    if clip.positions is not None:
        return Clip(clip.name, clip.fps, None, [move_points(p, matrix) for p in clip.positions])
    inverse = np.linalg.inv(matrix)
    return Clip(clip.name, clip.fps, (matrix @ clip.matrices.astype(np.float64) @ inverse).astype(np.float32))
