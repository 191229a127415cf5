"""How a video is cut into chunks for the network, and which neighbours the interpolation model joins. Pure arithmetic.

A chunk starts with the last frame of the chunk before it: that frame's Gaussians are rendered from the sides and become
the chunk's other three views, which is how the object stays the same object.

:func:`plan_chunks` is what the package uses. :func:`published_plan` repeats the control flow of the released inference
script, with its oddities: clamped repeats at the end, one forward pass that is thrown away, a pair of frames left out and one
repeated at every seam, and, without interpolation, views that are never updated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CHUNK = 16  # frames in one forward pass, as published
RATE = 3  # sets per key frame after interpolation: two new ones between neighbours
_PUBLISHED_FPS = 15
_PUBLISHED_RUNS = 100


@dataclass(frozen=True)
class Chunk:
    """One forward pass. "Steps" count from 0 inside the chunk.

    Attributes:
        frames: the video frame of every step.
        renewed: whether views 1 to 3 are renders of the last kept set before it (else the initial views).
        kept: the steps whose Gaussians are results.
        pairs: (step, next step) that the interpolation model joins.
        whole: whether the first pair's first set is a result too (else it repeats the one before it).
        own_ends: whether an interpolation in the first step uses this chunk's own set, not the one carried over.
    """

    frames: tuple[int, ...]
    renewed: bool
    kept: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    whole: bool
    own_ends: bool = False


def plan_chunks(frames: int, chunk: int = CHUNK, interpolate: bool = True) -> list[Chunk]:
    """Every frame once, every pair of neighbours once.

    Chunks overlap in one frame and are of nearly equal length (at most ``chunk`` frames), so that no chunk is a stump; a video
    shorter than ``chunk`` is one chunk of its own length.
    """
    if frames < 1 or chunk < 2:
        raise ValueError(f"a plan needs at least one frame and chunks of two, got {frames} frames, chunks of {chunk}")
    count = max(1, -(-(frames - 1) // (chunk - 1)))
    seams = [round(k * (frames - 1) / count) for k in range(count + 1)]
    chunks = []
    for k, (start, end) in enumerate(pairwise(seams)):
        steps = end - start + 1
        pairs = tuple((i, i + 1) for i in range(steps - 1)) if interpolate else ()
        kept = tuple(range(min(k, 1), steps))
        chunks.append(Chunk(tuple(range(start, end + 1)), k > 0, kept, pairs, whole=k == 0))
    return chunks


def published_stride(fps: float) -> int:
    """Every how many video frames the released script takes one."""
    return int(fps // _PUBLISHED_FPS) if fps > _PUBLISHED_FPS else 1


def published_plan(frames: int, fps: float, chunk: int = CHUNK, interpolate: bool = True) -> list[Chunk]:
    """What the released script does with a video of ``frames`` frames at ``fps``; its last pass keeps nothing."""
    stride = published_stride(fps)
    count = max(frames // stride, 1)
    chunks = []
    for k in range(_PUBLISHED_RUNS):
        start = k * (chunk - 1)
        picked = tuple(min(start + i, count - 1) * stride for i in range(chunk))
        kept = tuple(range(chunk)) if k == 0 else tuple(range(1, min(max(count - start, 1), chunk)))
        pairs = tuple((i, i + 1) for i in range(len(kept) - 1)) if interpolate else ()
        chunks.append(Chunk(picked, k > 0 and interpolate, kept, pairs, whole=True, own_ends=True))
        if not kept:
            break
    return chunks


def key_times(chunks: Sequence[Chunk]) -> list[float]:
    """Video frame of every kept key set, in output order."""
    return [float(c.frames[step]) for c in chunks for step in c.kept]


def interpolated_times(chunks: Sequence[Chunk], rate: int = RATE) -> list[float]:
    """Moment (in video frames) of every set that the interpolation model makes, in output order."""
    times = []
    for c in chunks:
        for number, (a, b) in enumerate(c.pairs):
            first = 0 if number == 0 and c.whole else 1
            times += [c.frames[a] + (c.frames[b] - c.frames[a]) * i / rate for i in range(first, rate + 1)]
    return times
