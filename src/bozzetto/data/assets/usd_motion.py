"""Motion of a USD stage: moving prims, moving points and skeletons, as one clip of vertex positions.

Skeletons are baked into moving points by the package itself, into the layer of this session: no file is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .glb_scene import LONGEST, SAMPLE_FPS
from .source_object import Clip

_MOST_NUMBERS = 40_000_000  # vertices times frames of a clip: about half a gigabyte
_STILL = 1e-5  # of the object's size: what moves less stands


@dataclass
class Mover:
    """A part's mesh (``UsdGeom.Mesh``) and the point [V] of it that each vertex stands at."""

    mesh: Any
    numbers: NDArray[np.int64]


def bake_skeletons(stage: Any) -> None:
    """Turn what skeletons do to meshes into points with time samples, in the session's layer."""
    from pxr import Usd, UsdSkel

    if _range(stage) is None:
        return
    roots = [p for p in stage.Traverse() if p.IsA(UsdSkel.Root)]
    if not roots:
        return
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        for root in roots:
            UsdSkel.BakeSkinning(UsdSkel.Root(root))


def sample_motion(stage: Any, movers: list[Mover], turn: Callable[[NDArray], NDArray] | None) -> list[Clip]:
    """The stage's time range as a clip at 30 frames per second, at most 20 seconds; [] where nothing moves.

    Args:
        movers: of the parts, in their order.
        turn: brings points [V, 3] of the stage into y up; None if they are.
    """
    from pxr import UsdGeom

    span = _range(stage)
    if span is None or not movers:
        return []
    first, last = span
    per_second = stage.GetTimeCodesPerSecond() or 24.0
    seconds = min((last - first) / per_second, LONGEST)
    count = max(2, round(seconds * SAMPLE_FPS) + 1)
    count = max(2, min(count, _MOST_NUMBERS // max(sum(len(m.numbers) for m in movers), 1)))
    positions = [np.empty((count, len(m.numbers), 3), np.float32) for m in movers]
    for frame, time in enumerate(first + np.linspace(0, seconds, count) * per_second):
        places = UsdGeom.XformCache(time)
        shared: dict[str, NDArray] = {}
        for mover, out in zip(movers, positions):
            key = str(mover.mesh.GetPath())
            if key not in shared:
                points = np.array(mover.mesh.GetPointsAttr().Get(time) or [], np.float64).reshape(-1, 3)
                matrix = np.array(places.GetLocalToWorldTransform(mover.mesh.GetPrim())).T
                shared[key] = points @ matrix[:3, :3].T + matrix[:3, 3]
            if mover.numbers.max(initial=-1) >= len(shared[key]):
                return []  # points come and go: no clip can say that
            placed = shared[key][mover.numbers]
            out[frame] = placed if turn is None else turn(placed.astype(np.float32))
    size = max(float(np.ptp(np.concatenate([p.reshape(-1, 3) for p in positions]), axis=0).max()), 1e-30)
    if not all(np.isfinite(p).all() for p in positions):
        return []
    if max(float(np.abs(p - p[:1]).max(initial=0)) for p in positions) < _STILL * size:
        return []
    return [Clip("clip 0", (count - 1) / seconds, None, positions)]


def _range(stage: Any) -> tuple[float, float] | None:
    """First and last time code, where the stage says so and time passes."""
    if not stage.HasAuthoredTimeCodeRange():
        return None
    first, last = stage.GetStartTimeCode(), stage.GetEndTimeCode()
    return (first, last) if last > first else None
