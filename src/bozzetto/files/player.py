"""A sequence of Gaussians → one ``player.html`` that opens from disk and needs no network: orbit, play, scrub, speed.

The page is the viewer's (:mod:`bozzetto.files.viewer`) with a time line. A frame's splats take 17 bytes each: centres as
3 x uint16 over a box around the object, rotations as 4 x int8, logarithms of the scales, colours and opacities as uint8.
16 frames of 65,536 splats make a page of 24 MB; splats that cannot be seen are left out first. A page that would become
larger than ``MAX_BYTES`` loses splats of little weight, then frames; it says so, and so does what is returned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch

from ..errors import ForegroundError
from ..gaussians import Gaussians
from .atomic import atomic_write_text
from .sequence import time_frames
from .viewer import page_path, page_scene, page_text

MAX_BYTES = 60_000_000
SPLAT_BYTES = 17
TEXT = 4 / 3  # characters of base64 a byte
FEWEST = 16_384  # splats a frame; rather than go below, frames are left out
VISIBLE = 1 / 255
FAR = 4.0  # of the object's radius: splats further away are strays, which would coarsen the centres


def write_player(
    path: str | PathLike[str],
    gaussians: Gaussians | Sequence[Gaussians],
    fps: float,
    title: str = "bozzetto",
    up: Sequence[float] = (0.0, 1.0, 0.0),
    max_bytes: int = MAX_BYTES,
) -> list[str]:
    """Write a self-contained page that plays a sequence, atomically.

    Args:
        path: ``.html`` file.
        gaussians: [T, N], or a list of unbatched Gaussians; of view-dependent colour only the constant part is shown.
        fps: frames per second.
        title: shown on the page, any text.
        up: the world direction that is up; the first view looks at the front (+z for a y-up world).
        max_bytes: the page may not become much larger than this.

    Returns:
        What a user should know about the page (also shown on it): splats or frames that were left out.

    Raises:
        OutputError: the suffix is not .html, or the file cannot be written. ForegroundError: nothing is visible.
        ValueError: no frames, fps not positive, or ``up`` of zero length.
    """
    path = page_path(path)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be positive, got {fps}")
    frames = time_frames(gaussians)
    notes = []
    centre, radius = sequence_bounds(frames)
    counts = [len(_drawn(frame, centre, radius)) for frame in frames]
    room = max(counts)
    if sum(counts) * SPLAT_BYTES * TEXT > max_bytes:
        most = max_bytes / (SPLAT_BYTES * TEXT)  # splats in all frames together
        every = math.ceil(len(frames) * min(FEWEST, room) / most)
        if every > 1:
            frames, counts, fps = frames[::every], counts[::every], fps / every
            notes.append(f"every {_ordinal(every)} frame")
        room = int(most / len(frames))
        if max(counts) > room:
            notes.append(f"the {room:,} weightiest of up to {max(counts):,} splats a frame")
    if any(frame.sh_degree for frame in frames):
        notes.append("colours as seen from all sides")
    meta, data = pack_film(frames, centre, radius, room)
    meta |= {"fps": fps, "notes": notes}
    scene = page_scene(centre, radius, up) | {"film": meta}
    atomic_write_text(path, page_text(title, scene, data))
    return notes


def sequence_bounds(frames: Sequence[Gaussians]) -> tuple[list[float], float]:
    """Centre and radius of a sphere that holds the object in all frames; faint and a few stray splats do not count."""
    points = []
    for frame in frames:
        for least in (0.1, VISIBLE):
            means = frame.means.detach()[frame.opacities.detach() >= least]
            means = means[torch.isfinite(means).all(dim=-1)]
            if len(means):
                break
        points.append(means[:: max(1, len(means) // 4000)].double().cpu())
    everywhere = torch.cat(points)
    if not len(everywhere):
        raise ForegroundError("there is nothing to see: no splat of any frame has an opacity above 0.4 %")
    ordered = everywhere.sort(dim=0).values
    skip = len(ordered) // 200
    centre = (ordered[skip] + ordered[-1 - skip]) / 2
    radius = float((everywhere - centre).norm(dim=-1).sort().values[-1 - skip])
    return centre.tolist(), radius if radius > 0 else 1.0


def _drawn(frame: Gaussians, centre: list[float], radius: float) -> Gaussians:
    frame = frame.detach().to("cpu", torch.float32).prune(VISIBLE)
    return frame.select(((frame.means - torch.tensor(centre)).abs() <= FAR * radius).all(dim=-1))


def pack_film(frames: Sequence[Gaussians], centre: list[float], radius: float, room: int) -> tuple[dict, bytes]:
    """The page's description of a sequence, and its arrays: at most ``room`` splats of each frame."""
    low = np.array(centre) - FAR * radius
    step = 2 * FAR * radius / 65535
    sizes, tints = [], []
    for frame in frames:
        drawn = _drawn(frame, centre, radius)
        if len(drawn):
            sizes.append((float(drawn.scales.min()), float(drawn.scales.max())))
            tints.append(float(torch.quantile(drawn.rgb.amax(-1)[:: max(1, len(drawn) // 10_000)], 0.999)))
    largest = max((b for _, b in sizes), default=radius)
    smallest = min(max(min((a for a, _ in sizes), default=largest), 1e-5 * radius), largest)
    scale_range = [math.log(smallest), math.log(max(largest, smallest))]
    span = (scale_range[1] - scale_range[0]) or 1.0
    colour = max(1.0, *tints) if tints else 1.0
    parts, counts, offsets, at = [], [], [], 0
    for frame in frames:
        drawn = _drawn(frame, centre, radius)
        if len(drawn) > room:
            drawn = drawn.select(weight(drawn).topk(room).indices.sort().values)
        quats = torch.nn.functional.normalize(drawn.quats, dim=-1)
        quats = torch.where(quats.norm(dim=-1, keepdim=True) < 0.5, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats)
        logs = drawn.scales.clamp(smallest, largest).log().numpy()
        arrays = (
            np.rint((drawn.means.double().numpy() - low) / step).astype("<u2"),
            np.rint(quats.numpy() * 127).astype("i1"),
            np.rint((logs - scale_range[0]) * (255 / span)).clip(0, 255).astype("u1"),
            np.rint(drawn.rgb.numpy() * (255 / colour)).clip(0, 255).astype("u1"),
            np.rint(drawn.opacities.numpy() * 255).clip(0, 255).astype("u1"),
        )
        data = b"".join(array.tobytes() for array in arrays)
        data += bytes(-len(data) % 4)
        parts.append(data)
        counts.append(len(drawn))
        offsets.append(at)
        at += len(data)
    meta = {
        "counts": counts, "offsets": offsets, "low": low.tolist(), "step": step, "logScale": scale_range, "colour": colour,
    }  # fmt: skip
    return meta, b"".join(parts)


def weight(gaussians: Gaussians) -> torch.Tensor:
    """How much each splat can cover, [N]: opacity times the area of its largest cross-section."""
    two = gaussians.scales.topk(2, dim=-1).values
    return gaussians.opacities * two[:, 0] * two[:, 1]


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
