"""Which objects are refused, and why; which are kept with a flag."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .source_object import Part, SourceObject

# What is said of an object that is kept; "decimated" is added when it is packed.
FLAGS = ("animated", "foliage", "untextured", "one colour", "thin", "pieces", "decimated")

_SAMPLES = 8192  # surface points that stand for an object
_CELLS = 32  # cells along the longest side when pieces are looked for
_MOST_REPEATS = 1000  # texture coordinates beyond it are taken as their fraction
_LEAST_VISIBLE = 0.01  # of the surface
_TRANSPARENT = 0.3  # share of a picture's texels that makes it cut-out foliage


@dataclass(frozen=True)
class Limits:
    """What is refused or thinned out.

    Attributes:
        least_triangles: fewer are refused.
        most_triangles: more are decimated to this number (per object).
        refuse_triangles: more are refused: decimating them takes minutes and gigabytes.
        flat: the smallest extent (along the main axes) divided by the largest; below it an object is a sign, refused.
        scattered: share of the surface that the largest connected clump must have; 0 lets everything pass.
    """

    least_triangles: int = 12
    most_triangles: int = 20_000
    refuse_triangles: int = 5_000_000
    flat: float = 0.02
    scattered: float = 0.65


class RefusedError(Exception):
    """An object is not fit for training; the message is the reason."""


def _finite(values: NDArray | None) -> bool:
    return values is None or bool(np.isfinite(values).all())


def checked_part(part: Part, textures: int) -> Part:
    """``part`` without triangles that have no area, vertices that no face names not looked at.

    Raises:
        RefusedError: arrays that do not fit together, NaN, indices out of range.
    """
    count = len(part.vertices)
    shapes = {
        "vertices": (part.vertices, (count, 3)),
        "faces": (part.faces, (len(part.faces), 3)),
        "uvs": (part.uvs, (count, 2)),
        "joints": (part.joints, (count, 4)),
        "weights": (part.weights, (count, 4)),
        "colours": (part.colours, (count, 3)),
    }
    for name, (values, shape) in shapes.items():
        if values is not None and np.shape(values) != shape:
            raise RefusedError(f"malformed: {name} {np.shape(values)} instead of {shape}")
    if (part.joints is None) != (part.weights is None):
        raise RefusedError("malformed: joints and weights come together")
    if not (_finite(part.vertices) and _finite(part.uvs) and _finite(part.weights) and _finite(np.array(part.colour))):
        raise RefusedError("NaN or infinite numbers")
    if len(part.faces) and not 0 <= part.faces.min() <= part.faces.max() < count:
        raise RefusedError("malformed: faces name vertices that are not there")
    if part.texture is not None and not 0 <= part.texture < textures:
        raise RefusedError("missing texture")
    if part.texture is not None and part.uvs is None:
        raise RefusedError("malformed: a texture without texture coordinates")
    if part.alpha not in ("opaque", "mask", "blend"):
        raise RefusedError(f"malformed: alpha mode {part.alpha!r}")
    if part.uvs is not None and (wild := np.abs(part.uvs) > _MOST_REPEATS).any():
        # A few coordinates of billions, as some exporters write, would leave the others no bits when they are packed.
        part = replace(part, uvs=np.where(wild, part.uvs % 1, part.uvs).astype(np.float32))
    a, b, c = part.faces.T if len(part.faces) else np.zeros((3, 0), np.int32)
    return replace(part, faces=part.faces[(a != b) & (b != c) & (c != a)])


def areas(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """[F]."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def surface_points(parts: list[Part], count: int = _SAMPLES) -> NDArray[np.float64]:
    """[count, 3] points spread over the surface by area, the same for the same object. Raises RefusedError without area."""
    corners = np.concatenate([p.vertices[p.faces].astype(np.float64) for p in parts])  # [F, 3, 3]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = area.sum()
    if not total > 0 or not np.isfinite(total):
        raise RefusedError("empty: its triangles have no area")
    rng = np.random.default_rng(0)
    chosen = np.searchsorted(np.cumsum(area) / total, (np.arange(count) + rng.random(count)) / count)
    u, v = rng.random((2, count))
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    a, b, c = corners[np.minimum(chosen, len(corners) - 1)].transpose(1, 0, 2)
    return a + u[:, None] * (b - a) + v[:, None] * (c - a)


def thinness(points: NDArray) -> float:
    """Smallest extent of ``points`` [N, 3] along their main axes, divided by the largest."""
    centred = points - points.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1]
    own = np.ptp(centred @ axes, axis=0)
    return float(own.min() / max(own.max(), 1e-30))


def largest_clump(points: NDArray) -> float:
    """Share of ``points`` [N, 3] in the largest clump; clumps are apart by more than about 6 % of the longest side."""
    from scipy.ndimage import label

    low = points.min(0)
    cell = max(float(np.ptp(points, axis=0).max()), 1e-30) / _CELLS
    place = ((points - low) / cell).astype(int).clip(0, _CELLS)
    grid = np.zeros((_CELLS + 1,) * 3, bool)
    grid[tuple(place.T)] = True
    from scipy.ndimage import binary_dilation

    clumps, _ = label(binary_dilation(grid, np.ones((3, 3, 3))), np.ones((3, 3, 3)))
    counts = np.bincount(clumps[tuple(place.T)])
    return float(counts.max() / len(points))


def _foliage_share(obj: SourceObject, parts: list[Part]) -> float:
    """Share of the area that wears cut-out pictures with much empty space."""
    empty = [float((t[..., 3] < 128).mean()) for t in obj.textures]
    area = [float(areas(p.vertices, p.faces).sum()) for p in parts]
    thin = [
        a
        for a, p in zip(area, parts)
        if p.alpha != "opaque" and p.texture is not None and empty[p.texture] > _TRANSPARENT
    ]
    return sum(thin) / max(sum(area), 1e-30)


def visible_share(obj: SourceObject, parts: list[Part]) -> float:
    """Share of the area that is not cut away by transparency: an object of clear pictures alone shows nothing."""
    seen = total = 0.0
    rng = np.random.default_rng(0)
    for part in parts:
        area = areas(part.vertices, part.faces)
        total += float(area.sum())
        if part.alpha == "opaque" or part.texture is None or part.uvs is None:
            seen += float(area.sum())
            continue
        alpha = obj.textures[part.texture][..., 3]
        chosen = slice(None, None, 1 + len(area) // 50_000)
        corners = part.uvs[part.faces[chosen]].astype(np.float64)
        inside = rng.dirichlet(np.ones(3), (len(corners), max(16, 8192 // len(corners))))  # places of each triangle
        places = np.einsum("fkc,fcd->fkd", inside, corners) % 1
        column, row = (np.minimum((places[..., i] * n).astype(int), n - 1) for i, n in enumerate(alpha.shape[::-1]))
        opaque = (alpha[row, column] >= 128).mean(1)
        seen += float(area.sum() * np.average(opaque, weights=np.maximum(area[chosen], 1e-30)))
    return seen / max(total, 1e-30)


def _leaf_share(parts: list[Part]) -> float:
    """Share of the area in pieces of at most 8 triangles, where there are hundreds of them (modelled leaves and grass)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first = np.cumsum([0] + [len(p.vertices) for p in parts])
    faces = np.concatenate([p.faces + start for p, start in zip(parts, first)])
    _, place = np.unique(np.concatenate([p.vertices for p in parts]), axis=0, return_inverse=True)
    corner = place.reshape(-1)[faces]
    a, b = corner[:, [0, 1]].T.reshape(-1), corner[:, [1, 2]].T.reshape(-1)
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(place.max() + 1,) * 2)
    piece = connected_components(graph, directed=False)[1][corner[:, 0]]
    small = np.bincount(piece)[piece] <= 8
    if len(np.unique(piece[small])) < 300:
        return 0.0
    area = np.concatenate([areas(p.vertices, p.faces) for p in parts])
    return float(area[small].sum() / max(area.sum(), 1e-30))


def check(obj: SourceObject, limits: Limits) -> tuple[SourceObject, tuple[str, ...]]:
    """A sound version of ``obj`` (degenerate triangles and empty parts dropped) and its flags.

    Flags: "foliage" (cut-out or modelled leaves over 30 % of the area), "untextured" (no picture), "one colour" (no picture
    and a single colour), "thin" (less than 6 % thick), "animated", "pieces" (not one clump, but above the limit).

    Raises:
        RefusedError: empty, malformed, NaN, too few or too many triangles, missing texture, flat, scattered, invisible.
    """
    if obj.problems:
        raise RefusedError(obj.problems[0])
    if not obj.parts or not obj.triangles:
        raise RefusedError("empty: it has no triangles")
    if obj.triangles > limits.refuse_triangles:
        raise RefusedError(f"more than {limits.refuse_triangles:,} triangles")
    for texture in obj.textures:
        if texture.ndim != 3 or texture.shape[2] != 4 or texture.dtype != np.uint8 or not texture.size:
            raise RefusedError(f"malformed: a texture is {texture.dtype} {texture.shape}")
    parts = [checked_part(p, len(obj.textures)) for p in obj.parts]
    _check_clips(obj, parts)
    kept = [i for i, p in enumerate(parts) if len(p.faces)]
    clips = [c if c.positions is None else replace(c, positions=[c.positions[i] for i in kept]) for c in obj.clips]
    parts = [parts[i] for i in kept]
    obj = replace(obj, parts=parts, clips=clips)
    if obj.triangles < limits.least_triangles:
        raise RefusedError(f"too few triangles: fewer than {limits.least_triangles}")
    points = surface_points(parts)
    thickness, clump = thinness(points), largest_clump(points)
    if thickness < limits.flat:
        raise RefusedError(f"flat: thinner than {limits.flat:.0%} of its length")
    if clump < limits.scattered:
        raise RefusedError(f"scattered pieces: no clump has {limits.scattered:.0%} of the surface")
    if visible_share(obj, parts) < _LEAST_VISIBLE:
        raise RefusedError("invisible: transparency cuts nearly all of it away")
    plain = not any(p.texture is not None for p in parts)
    found = {
        "animated": bool(clips),
        "foliage": _foliage_share(obj, parts) > 0.3 or _leaf_share(parts) > 0.3,
        "untextured": plain,
        "one colour": plain and len({p.colour for p in parts}) == 1 and all(p.colours is None for p in parts),
        "thin": thickness < 0.06,
        "pieces": clump < 0.9,
    }
    return obj, tuple(name for name in FLAGS if found.get(name))


def _check_clips(obj: SourceObject, parts: list[Part]) -> None:
    joints = max((int(p.joints.max(initial=-1)) for p in parts if p.joints is not None), default=-1)
    if any(p.joints is not None and p.joints.min(initial=0) < 0 for p in parts):
        raise RefusedError("malformed: negative joint numbers")
    for clip in obj.clips:
        if (clip.matrices is None) == (clip.positions is None) or not clip.fps > 0:
            raise RefusedError(f"malformed: clip {clip.name!r}")
        if clip.matrices is not None:
            good = clip.matrices.ndim == 4 and clip.matrices.shape[2:] == (4, 4) and clip.matrices.shape[1] > joints
            arrays = [clip.matrices]
        else:
            good = len(clip.positions) == len(parts) and all(
                q.ndim == 3 and q.shape[1:] == p.vertices.shape and len(q) == len(clip.positions[0])
                for q, p in zip(clip.positions, parts)
            )
            arrays = clip.positions
        if not good or not len(arrays[0]):
            raise RefusedError(f"malformed: clip {clip.name!r} does not fit the parts")
        if not all(np.isfinite(a).all() for a in arrays):
            raise RefusedError("NaN or infinite numbers in a clip")
