"""A moving object in one compact file: ``.4dgs``, the 4dgs container (https://4dgs.dev/docs/spec/, Apache-2.0).

Each frame is one chunk of still Gaussians that exist during the frame's slot of time: the container's "box" visibility.
Positions are rounded to 1/65,536 of the object's size, logarithms of the scales to 0.01, rotations to 1/1,024, colours and
opacities to 1/510: about 13 bytes a splat and frame after compression, where a PLY file takes 68. Splats that no
rasterizer draws (opacity below 1/255, non-finite) are left out; colours outside 0..1 are clipped, as the format demands.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import OutputError, SplatFileError
from ..gaussians import Gaussians
from . import sequence_format as form
from .atomic import atomic_path
from .inputs import check_input
from .sequence_format import Bytes, Grid

VISIBLE = 1 / 255  # opacity below which no rasterizer draws a splat
DEFAULT_FPS = 30.0  # of a file that does not tell


def time_frames(gaussians: Gaussians | Sequence[Gaussians]) -> list[Gaussians]:
    """The frames, unbatched, of Gaussians with a leading time axis [T, N] (views, no copies), or of a list of them.

    Raises:
        ValueError: no frames, or another number of leading axes.
    """
    if isinstance(gaussians, Gaussians):
        if len(gaussians.batch_shape) != 1:
            raise ValueError(f"expected Gaussians [T, N] with one leading axis, time; got {gaussians}")
        gaussians = [gaussians[t] for t in range(gaussians.batch_shape[0])]
    if not gaussians:
        raise ValueError("a sequence needs at least one frame")
    if any(frame.batch_shape for frame in gaussians):
        raise ValueError("the frames of a list must be unbatched Gaussians")
    return list(gaussians)


def stack_frames(frames: Sequence[Gaussians]) -> Gaussians:
    """Gaussians [T, N] of frames that may differ in number: the shorter ones are filled with transparent splats."""
    most = max(len(frame) for frame in frames)
    padded = []
    for frame in frames:
        missing = most - len(frame)
        means, scales, quats, opacities, sh = frame.tensors()
        quats = torch.cat([quats, quats.new_tensor([1.0, 0, 0, 0]).expand(missing, 4)])
        grow = [F.pad(t, (0, 0, 0, missing)) for t in (means, scales)]
        padded.append((*grow, quats, F.pad(opacities, (0, missing)), F.pad(sh, (0, 0, 0, 0, 0, missing))))
    return Gaussians(*(torch.stack(parts) for parts in zip(*padded, strict=True)))


def write_sequence(
    path: str | PathLike[str],
    gaussians: Gaussians | Sequence[Gaussians],
    fps: float,
    up: Sequence[float] = (0.0, 1.0, 0.0),
    title: str = "",
) -> None:
    """Write a ``.4dgs`` file, atomically, frame by frame (one frame in memory beside ``gaussians``).

    Args:
        path: ends in ``.4dgs``.
        gaussians: [T, N], or a list of unbatched Gaussians; any SH degree (degree 1..3 is stored in bytes over -4..4).
        fps: frames per second.
        up: the world direction that is up.
        title: stored in the file.

    Raises:
        OutputError: another suffix, or the file cannot be written. ValueError: no frames, fps not positive.
    """
    from importlib.metadata import PackageNotFoundError, version

    path = Path(path)
    if path.suffix.lower() != ".4dgs":
        raise OutputError(f"cannot write {path}: the name of a splat sequence must end in .4dgs")
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be positive, got {fps}")
    frames = time_frames(gaussians)
    grid, low, high, counts = _measure(frames)
    try:
        library = f"bozzetto {version('bozzetto')}"
    except PackageNotFoundError:  # run from a source folder that was never installed
        library = "bozzetto"
    about = {
        "visibility_profile": "box", "color_space": "srgb-rec709-display", "fps": repr(float(fps)),
        "up": " ".join(repr(float(v)) for v in up), "title": title,
    }  # fmt: skip
    box = struct.pack("<6d", *low, *high)
    duration, total = len(frames) / fps, sum(counts)
    header = form.text("") + form.text(library) + struct.pack("<dQd", duration, total, 0.05)
    degree = max(frame.sh_degree for frame in frames)
    header += form.text("gaussian-birth") + box + struct.pack("<BB", degree, 0) + form.mapping(about)
    ends = [k / fps for k in range(len(frames) + 1)]
    windows = struct.pack(
        f"<I{2 * len(frames)}d", len(frames), *(t for k in range(len(frames)) for t in ends[k : k + 2])
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(form.MAGIC + form.record(form.HEADER, header) + form.record(form.QUANTIZATION, grid.encode()))
        file.write(form.record(form.WINDOWS, windows) + _coordinates(up))
        index = []
        for k, frame in enumerate(frames):
            span = (ends[k], ends[k + 1])
            places = []
            for data in form.encode_chunk(_drawn(frame, degree), grid, k, span):
                places.append((file.tell(), len(data)))
                file.write(data)
            entry = struct.pack("<ddQQII", *span, *places[0], counts[k], len(places) - 1)
            entry += b"".join(struct.pack("<BQQ", band, *place) for band, place in enumerate(places[1:], start=1))
            index.append(form.record(form.INDEX, entry))
        start = file.tell()
        statistics = struct.pack("<QId", total, len(frames), duration) + box
        summary = b"".join(index) + form.record(form.STATISTICS, statistics)
        file.write(summary + form.record(form.FOOTER, struct.pack("<QQI", start, 0, zlib.crc32(summary))) + form.MAGIC)


def _drawn(frame: Gaussians, degree: int) -> Gaussians:
    frame = frame.detach().to("cpu", torch.float32).prune(VISIBLE)
    return Gaussians.cat([frame, Gaussians.empty(degree)]) if frame.sh_degree < degree else frame


def _measure(frames: Sequence[Gaussians]) -> tuple[Grid, list[float], list[float], list[int]]:
    """A grid that suits all frames, the box of all centres, and how many splats of each frame are drawn."""
    lows, highs, counts, samples = [], [], [], []
    for frame in frames:
        means = _drawn(frame, 0).means.double()
        counts.append(len(means))
        if len(means):
            lows.append(means.amin(0))
            highs.append(means.amax(0))
            samples.append(means[:: max(1, len(means) // 2000)])
    if not lows:
        return Grid((0.0, 0.0, 0.0), 2.0**-16), [0.0] * 3, [0.0] * 3, counts
    low, high = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
    ordered = torch.cat(samples).sort(dim=0).values
    skip = len(ordered) // 100  # stray splats must not coarsen the grid
    centre = (ordered[skip] + ordered[-1 - skip]) / 2
    size = float((ordered[-1 - skip] - ordered[skip]).max())
    reach = float((torch.maximum(high - centre, centre - low)).max())
    # 30 bits of range for the strays; a lone point gets a grid of its own magnitude.
    step = max(size / 65536, reach / 2**28, 1e-9 * max(1.0, float(centre.abs().max())))
    return Grid(tuple(centre.tolist()), step), low.tolist(), high.tolist(), counts


def _coordinates(up: Sequence[float]) -> bytes:
    """Coordinate Frame record for a world whose up is +y (front +z) or +z (front -y); nothing for others."""
    axes = {(0.0, 1.0, 0.0): (1, 2), (0.0, 0.0, 1.0): (2, 4)}.get(tuple(float(v) for v in up))
    if axes is None:
        return b""
    return form.record(form.COORDINATES, form.text("") + struct.pack("<BBBBd", 1, *axes, 0, 0.0))


@dataclass
class SplatSequence:
    """An open ``.4dgs`` file: ``len`` frames, each read from disk when asked for.

    Attributes:
        path: the file.
        fps: frames per second that the file names, else 30.
        up: the world direction that is up, +y if the file does not tell.
        duration: seconds.
        notes: what is unusual about the file (cut short).
    """

    path: Path
    fps: float
    up: tuple[float, float, float]
    duration: float
    grid: Grid
    windows: np.ndarray  # [count, 2], seconds
    cutoff: float
    chunks: list[tuple[float, float, int, int, list[tuple[int, int]]]]  # start, end, offset, length, bands' places
    notes: list[str] = field(default_factory=list)
    _last: tuple = (None, None, None)

    def __len__(self) -> int:
        return max(1, round(self.duration * self.fps))

    def __getitem__(self, index: int) -> Gaussians:
        """The Gaussians of frame ``index`` (counted from the end if negative), unbatched."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self.at((index % len(self) + 0.5) / self.fps)

    def at(self, seconds: float) -> Gaussians:
        """The Gaussians that are visible at a time."""
        found = []
        for number, (start, end, *_) in enumerate(self.chunks):
            if start <= seconds < end:
                bins, bands = self._chunk(number)
                found.append(form.gaussians_at(bins, bands, self.grid, self.windows, self.cutoff, seconds))
        return found[0] if len(found) == 1 else Gaussians.cat(found)

    def stack(self) -> Gaussians:
        """All frames as Gaussians [T, N], shorter frames filled with transparent splats."""
        return stack_frames([self[k] for k in range(len(self))])

    def _chunk(self, number: int) -> tuple[dict[int, np.ndarray], list[np.ndarray]]:
        if self._last[0] != number:
            *_, offset, length, places = self.chunks[number]
            with self.path.open("rb") as file:
                bins = form.decode_chunk(_content(file, offset, length, self.path))
                count, bands = len(bins[form.POSITION]), []
                for band, (at, size) in enumerate(places, start=1):
                    content = _content(file, at, size, self.path)
                    content.take(1)  # the band's number, which the order tells
                    codes = form.decode_stream(content, count)[1]
                    if codes is None or codes.shape[1] != 3 * (2 * band + 1):
                        raise SplatFileError(f"{self.path} is damaged: harmonics of band {band} have a wrong layout")
                    bands.append(codes)
            if count and (bins[form.WINDOW].min() < 0 or bins[form.WINDOW].max() >= len(self.windows)):
                raise SplatFileError(f"{self.path} is damaged: a splat names a window that the file does not have")
            self._last = (number, bins, bands)
        return self._last[1], self._last[2]


def read_sequence(path: str | PathLike[str]) -> SplatSequence:
    """Open a ``.4dgs`` file of still, moving or fading Gaussians (temporal model "gaussian-birth", deflate).

    A file that was cut short gives the frames that are whole, and says so in ``notes``.

    Raises:
        SplatFileError: missing, empty, damaged, not a 4dgs file, or one that uses what this reader does not know
            (keyframes with differences, moving objects, zstd).
    """
    path = check_input(path, "a .4dgs file", SplatFileError)
    header: tuple | None = None
    grid, windows, chunks, notes = None, np.zeros((1, 2)), [], []
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(form.MAGIC)) != form.MAGIC:
            raise SplatFileError(f"{path} is not a 4dgs file of version 1")
        at, ended = file.tell(), False
        while at + 9 <= size and not ended:
            file.seek(at)
            opcode, length = struct.unpack("<BQ", file.read(9))
            place, at = at + 9, at + 9 + length
            if at > size:
                break
            if opcode == form.HEADER:
                header = _header(_content(file, place - 9, length + 9, path))
            elif opcode == form.QUANTIZATION:
                grid = Grid.decode(_content(file, place - 9, length + 9, path))
            elif opcode == form.WINDOWS:
                content = _content(file, place - 9, length + 9, path)
                (count,) = content.unpack("I")
                windows = np.frombuffer(content.take(16 * count), "<f8").reshape(-1, 2) if count else windows
            elif opcode == form.CHUNK:
                start, end = struct.unpack("<dd", file.read(16))
                chunks.append((start, end, place - 9, length + 9, []))
            elif opcode == form.SH_BAND and chunks:
                chunks[-1][4].append((place - 9, length + 9))
            elif opcode == form.OBJECT_TRACK:
                raise SplatFileError(f"{path} moves whole objects (object tracks), which cannot be read")
            ended = opcode == form.FOOTER
    if header is None or grid is None:
        raise SplatFileError(f"{path} is damaged: its header is missing; write or download it again")
    duration, cutoff, degree, about = header
    if not ended:
        notes.append(f"{path.name} is cut short; {len(chunks)} whole chunks were found")
        duration = max((end for _, end, *_ in chunks), default=0.0)
        if chunks and len(chunks[-1][4]) < degree:
            chunks.pop()
    if not chunks:
        raise SplatFileError(f"{path} holds no whole chunk of splats; write or download it again")
    fps = _numbers(about.get("fps", ""), 1)
    up = _numbers(about.get("up", ""), 3)
    return SplatSequence(
        path,
        fps[0] if fps and fps[0] > 0 else DEFAULT_FPS,
        up if up and any(up) else (0.0, 1.0, 0.0),
        duration,
        grid,
        windows,
        cutoff,
        chunks,
        notes,
    )


def _content(file: BinaryIO, offset: int, length: int, path: Path) -> Bytes:
    """The content of the record [offset, offset + length)."""
    file.seek(offset + 9)
    return Bytes(file.read(length - 9), str(path))


def _header(source: Bytes) -> tuple[float, float, int, dict[str, str]]:
    """Duration, cutoff, SH degree and the free-form entries."""
    source.text()
    source.text()
    duration, _, cutoff = source.unpack("dQd")
    model = source.text()
    if model != "gaussian-birth":
        raise SplatFileError(f"{source.name} uses the temporal model {model!r}; only 'gaussian-birth' can be read")
    *_, degree, _ = source.unpack("6dBB")
    if not (0 < cutoff <= 1 and math.isfinite(duration) and 0 <= duration < 1e7 and degree <= 3):
        raise SplatFileError(f"{source.name} is damaged: its header makes no sense; write or download it again")
    return duration, cutoff, degree, source.mapping()


def _numbers(words: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(word) for word in words.split())
    except ValueError:
        return None
    return values if len(values) == count and all(math.isfinite(v) for v in values) else None
