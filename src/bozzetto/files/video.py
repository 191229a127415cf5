"""A clip on disk -> frames at one rate and of one size: films, animated pictures, folders of pictures.

Frames are picked by time stamp: frame k shows what the clip shows at ``start + k / fps``, so nothing drifts however the
clip's own rate varies. Decoding streams; memory holds only the frames that are kept, as bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ImageError, InputError
from .inputs import check_input
from .video_sources import Shot, Source, is_animation, open_animation, open_film, open_folder

MAX_FRAMES = 240  # 8 seconds at 30 frames a second
SIZE_LIMIT = 1024  # pixels; networks see at most 512


@dataclass
class VideoClip:
    """Frames of one size at a steady rate.

    Attributes:
        pixels: [T, H, W, 3] or [T, H, W, 4] uint8 on the CPU; sRGB, straight alpha.
        fps: frames per second of ``pixels``.
        source_fps: the (mean) rate of the file.
        has_alpha: four channels, of which the last separates an object from its background in at least one frame.
        path: where it came from.
        notes: sentences on what was cut, resized, left out or damaged; show them to the user.
    """

    pixels: Tensor
    fps: float
    source_fps: float
    has_alpha: bool
    path: Path
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def frames(self) -> Tensor:
        """``pixels`` as floats in 0..1 (four times the memory: use :meth:`frame` for long clips)."""
        return self.pixels.float() / 255

    def frame(self, index: int) -> Tensor:
        """One frame [H, W, 3 or 4], float in 0..1."""
        return self.pixels[index].float() / 255

    def report(self) -> dict[str, Any]:
        """Plain values for ``report.json``."""
        return {
            "name": self.path.name,
            "frames": len(self.pixels),
            "size": list(self.pixels.shape[1:3]),
            "fps": self.fps,
            "source_fps": round(self.source_fps, 4),
            "has_alpha": self.has_alpha,
            "notes": list(self.notes),
        }


def check_reading(
    path: str | PathLike[str], fps: float | None = None, start: float = 0.0, seconds: float | None = None
) -> None:
    """Refuse what :func:`read_video` refuses without looking into the file: so before any long preparation."""
    for name, value in (("fps", fps), ("seconds", seconds)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive, got {value}")
    if not (math.isfinite(start) and start >= 0):
        raise InputError(f"start must be at least 0 seconds, got {start}")
    if not Path(path).is_dir():
        check_input(path, "a video", ImageError)


def read_video(
    path: str | PathLike[str],
    *,
    fps: float | None = None,
    least_fps: float | None = None,
    start: float = 0.0,
    max_seconds: float | None = None,
    max_frames: int = MAX_FRAMES,
    size_limit: int = SIZE_LIMIT,
) -> VideoClip:
    """Read a film that PyAV reads, a GIF (or animated WebP, PNG), or a folder of pictures in natural order.

    Args:
        path: file or folder.
        fps: frames per second of the result, each the latest frame of the clip at its time; by default the clip's own
            (mean) rate. Pictures of a folder are taken to be ``fps`` (24 by default) a second and are all used.
        least_fps: without ``fps``, a faster clip is thinned to the smallest whole fraction of its rate that is no lower
            (15: 30 becomes 15, 24 stays).
        start: seconds of the clip to leave out at its beginning.
        max_seconds: of the clip to read, or None for all.
        max_frames: after so many frames the rest is left out, and ``notes`` says so.
        size_limit: larger frames are scaled down so that their longer side has so many pixels.

    Returns:
        A clip of at least one frame. Phone videos are upright; frames of another size than the first are scaled and
        padded to it; a damaged end is left out. Whatever was done is in ``notes``.

    Raises:
        ImageError: missing, empty, not a video, without pictures, or nothing of it can be decoded.
        InputError: an argument out of range, a folder without pictures, or a start after the end.
    """
    check_reading(path, fps, start, max_seconds)
    if least_fps is not None and not (math.isfinite(least_fps) and least_fps > 0):
        raise InputError(f"least_fps must be positive, got {least_fps}")
    if max_frames < 1 or size_limit < 16:
        raise InputError(f"max_frames must be at least 1 and size_limit at least 16, got {max_frames} and {size_limit}")
    path = Path(path)
    if path.is_dir():
        source = open_folder(path, fps, size_limit)
    else:
        path = check_input(path, "a video", ImageError)
        animation = is_animation(path)
        source = open_animation(path, size_limit) if animation else open_film(path, start, size_limit)
    rate = fps or source.fps
    if fps is None and least_fps is not None:
        rate = source.fps / max(1, math.floor(1.01 * source.fps / least_fps))  # 29.97 counts as 30
    if fps is not None and fps > 1.01 * source.fps and not path.is_dir():
        source.notes.append(f"the clip has {source.fps:.3g} frames a second; at {fps:.3g} some are repeated")
    end = math.inf if max_seconds is None else max_seconds
    frames = _Frames(max_frames)
    for k, shot in enumerate(sampled(source, rate, start)):
        if k / rate >= end - 1e-9:
            break
        if k == max_frames:
            seconds = "" if source.seconds is None else f" of {source.seconds:.1f} s"
            source.notes.append(
                f"only the first {max_frames} frames ({max_frames / rate:.1f} s{seconds}) are used; "
                "choose another part with start, a lower fps, or a larger max_frames"
            )
            break
        frames.add(shot)
    if not frames.count:
        length = "" if source.seconds is None else f"; it is {source.seconds:.2f} s long"
        raise InputError(f"{path} has no frame after {start} s{length}; choose an earlier start")
    pixels, has_alpha = frames.result()
    if frames.resized:
        source.notes.append(f"{frames.resized} frames had another size and were fitted into the first one's")
    if frames.count == 1:
        source.notes.append("the clip has a single frame: nothing moves in it")
    return VideoClip(pixels, rate, source.fps, has_alpha, path, source.notes)


def sampled(source: Source, rate: float, start: float = 0.0) -> Iterator[Shot]:
    """The latest shot at each of the times start, start + 1 / rate, ... until the clip ends.

    Time stamps are rounded in files (to a millisecond in WebM), so a shot may be early by a quarter of a frame.
    """
    slack = 0.25 * min(1 / rate, 1 / source.fps)
    k, held = 0, None
    for shot in source.shots:
        while held is not None and start + k / rate + slack < shot.seconds:
            yield held
            k += 1
        held = shot
    while held is not None and start + k / rate + slack < held.seconds + (held.lasts or 1 / source.fps):
        yield held
        k += 1


class _Frames:
    """Kept frames: bytes of one size in one array that doubles when it is full."""

    def __init__(self, most: int) -> None:
        self.most, self.count, self.resized = most, 0, 0
        self.array: np.ndarray | None = None
        self.last: tuple[Shot, np.ndarray] | None = None
        self.alpha = False

    def add(self, shot: Shot) -> None:
        if self.last is None or self.last[0] is not shot:  # a repeated frame is converted once
            self.last = (shot, shot.pixels())
        pixels = self.last[1]
        if self.array is None:
            self.array = np.empty((min(self.most, 64), *pixels.shape[:2], 4), np.uint8)
        elif self.count == len(self.array):
            self.array = np.concatenate([self.array, np.empty_like(self.array)])
        height, width = self.array.shape[1:3]
        if pixels.shape[:2] != (height, width):
            pixels = _fit_into(pixels, height, width)
            self.resized += 1
        into = self.array[self.count]
        into[..., : pixels.shape[2]] = pixels
        into[..., pixels.shape[2] :] = 255
        if pixels.shape[2] == 4 and not self.alpha:
            from ..matting.cutout import has_alpha

            self.alpha = has_alpha(torch.from_numpy(pixels).float() / 255)
        self.count += 1

    def result(self) -> tuple[Tensor, bool]:
        used = self.array[: self.count, ..., : 4 if self.alpha else 3]
        return torch.from_numpy(np.ascontiguousarray(used)), self.alpha


def _fit_into(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame scaled to fit into [height, width]; the rest is transparent, or repeats the frame's border."""
    from .images import resize_image, to_uint8

    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    size = min(height, max(1, round(pixels.shape[0] * scale))), min(width, max(1, round(pixels.shape[1] * scale)))
    small = to_uint8(resize_image(torch.from_numpy(pixels).float() / 255, size))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    margins = ((top, height - size[0] - top), (left, width - size[1] - left), (0, 0))
    if pixels.shape[2] == 4 and bool((pixels[..., 3] < 128).any()):
        return np.pad(small, margins)
    return np.pad(small, margins, mode="edge")
