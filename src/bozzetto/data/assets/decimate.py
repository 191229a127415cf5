"""Fewer triangles with their texture coordinates, skin weights and motion kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .source_object import Part, SourceObject

_LEAST = 64  # triangles that even a small part keeps


def decimate_object(obj: SourceObject, most: int) -> SourceObject:
    """``obj`` with about ``most`` triangles, shared out among its parts by their number of triangles.

    Edges are collapsed by quadric error (fast-simplification). Vertices with several texture coordinates (seams) move as
    one, so no gaps open; each remaining corner takes the coordinates, weights and motion of the nearest original vertex
    that was merged into it on its own side of the seam.
    """
    total = obj.triangles
    if total <= most:
        return obj
    done = [_decimate_part(p, max(_LEAST, round(len(p.faces) * most / total))) for p in obj.parts]
    parts = [
        replace(part, **_pick(part, sources, vertices), faces=faces)
        for part, (vertices, faces, sources) in zip(obj.parts, done)
    ]
    clips = []
    for clip in obj.clips:
        if clip.positions is not None:
            clip = replace(clip, positions=[p[:, sources] for p, (_, _, sources) in zip(clip.positions, done)])
        clips.append(clip)
    return replace(obj, parts=parts, clips=clips)


def _pick(part: Part, sources: NDArray, vertices: NDArray) -> dict:
    out = {name: getattr(part, name) for name in ("uvs", "joints", "weights", "colours")}
    return {name: None if v is None else v[sources] for name, v in out.items()} | {"vertices": vertices}


def _decimate_part(part: Part, most: int) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """New vertices [V', 3], faces [F', 3], and for each new vertex the old one whose attributes it takes [V']."""
    same = part.vertices, part.faces, np.arange(len(part.vertices))
    if len(part.faces) <= most:
        return same
    import fast_simplification

    _, first, position = np.unique(part.vertices, axis=0, return_index=True, return_inverse=True)
    position = position.reshape(-1)
    points = part.vertices[first].astype(np.float64)  # [P, 3], each place once
    centre = points.mean(0)
    size = max(float(np.abs(points - centre).max()), 1e-30)  # the library's thresholds are absolute
    welded = position[part.faces]
    kept = np.flatnonzero(
        (welded[:, 0] != welded[:, 1]) & (welded[:, 1] != welded[:, 2]) & (welded[:, 2] != welded[:, 0])
    )
    welded = welded[kept].astype(np.int32)
    unit = ((points - centre) / size).astype(np.float32)
    if len(welded) <= most:
        return same
    # A low aggressiveness gives better triangles but may stop above the target; then the next one is tried.
    for aggressiveness in (5, 7, 10):
        _, left, collapses = fast_simplification.simplify(
            unit, welded, target_count=most, agg=aggressiveness, return_collapses=True
        )
        if len(left) <= 1.2 * most:
            break
    moved, _, merged = fast_simplification.replay_simplification(unit, welded, collapses)
    moved = np.asarray(moved, np.float64) * size + centre
    # Triangles that are left are original ones whose corners went elsewhere.
    corners = merged[welded]  # [K, 3]
    alive = (corners[:, 0] != corners[:, 1]) & (corners[:, 1] != corners[:, 2]) & (corners[:, 2] != corners[:, 0])
    if not alive.any():
        return same
    faces, corners = part.faces[kept[alive]], corners[alive]
    # Original vertices that went to one place along edges of their own side of a seam: the nearest lends its attributes.
    place = merged[position]  # [V], where each original vertex went
    side = _joined(part.faces[kept], place)
    named = np.unique(part.faces)
    distance = np.linalg.norm(part.vertices[named] - moved[place[named]], axis=1)
    order = named[np.lexsort((distance, side[named]))]
    fresh = np.ones(len(order), bool)
    fresh[1:] = side[order[1:]] != side[order[:-1]]
    group = np.zeros(len(part.vertices), np.int64)
    group[order] = np.cumsum(fresh) - 1
    lender = order[fresh]
    used, new_faces = np.unique(group[faces], return_inverse=True)
    sources = lender[used]
    return moved[place[sources]].astype(np.float32), new_faces.reshape(-1, 3).astype(np.int32), sources


def _joined(faces: NDArray, place: NDArray) -> NDArray[np.int32]:
    """[V], numbers of the sets of vertices that went to one place and hang together by edges between them."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b = np.concatenate([faces, np.roll(faces, -1, axis=1)]).reshape(2, -1)
    inside = place[a] == place[b]
    a, b, count = a[inside], b[inside], len(place)
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
