"""Where the frames of a clip come from: films (PyAV), animated pictures (Pillow), folders of pictures.

Each source yields :class:`Shot` objects in order of time; a shot is turned into pixels only if it is wanted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, InputError
from .images import MAX_PIXELS, read_image

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".tga", ".ppm", ".avif"}
FOLDER_FPS = 24.0
FALLBACK_FPS = 24.0  # of films that do not tell
MOST_BAD_PACKETS = 30  # in a row, after which the rest of a film counts as lost


@dataclass
class Shot:
    """A frame that may be wanted.

    Attributes:
        seconds: when it is shown, after the clip's start.
        pixels: gives [H, W, 3 or 4] uint8 with the long side within the limit.
        lasts: seconds that it is shown, None for the clip's mean.
    """

    seconds: float
    pixels: Callable[[], np.ndarray]
    lasts: float | None = None


@dataclass
class Source:
    """An opened clip.

    Attributes:
        shots: the frames in order; may raise :class:`ImageError` only before the first.
        fps: the clip's own (mean) rate. notes: what a user should know; grows while ``shots`` is used.
        seconds: the clip's length if known.
    """

    shots: Iterator[Shot]
    fps: float
    notes: list[str] = field(default_factory=list)
    seconds: float | None = None


def fitted(width: float, height: float, limit: int) -> tuple[int, int]:
    """(width, height) in whole pixels, scaled down so that the longer side is at most ``limit``."""
    scale = min(1.0, limit / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


# ---- films --------------------------------------------------------------------------------------------------------


def open_film(path: Path, start: float, limit: int) -> Source:
    """Anything PyAV reads, from the key frame before ``start`` (seconds) on; rotation and pixel aspect are applied.

    Raises:
        ImageError: not a film, no picture in it, or nothing of it can be decoded.
    """
    import av

    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        hint = "; give an MP4, MOV, WebM, MKV, GIF or a folder of pictures"
        raise ImageError(f"{path} is not a video that can be read ({_reason(error)}){hint}") from error
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        sound = " (it holds only sound)" if container.streams.audio else ""
        container.close()
        raise ImageError(f"{path} holds no video{sound}; give a video, a GIF or a folder of pictures")
    stream = streams[0]
    stream.thread_type = "AUTO"
    rate = stream.average_rate or stream.guessed_rate
    fps = float(rate) if rate and 0.01 < float(rate) < 1000 else FALLBACK_FPS
    seconds = None
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration:
        seconds = container.duration / 1e6
    source = Source(iter(()), fps, seconds=seconds)
    source.shots = _film_shots(path, container, stream, start, limit, source)
    return source


def _is_cover(stream: Any) -> bool:
    import av

    cover = getattr(getattr(av.stream, "Disposition", None), "attached_pic", None)
    return cover is not None and bool(getattr(stream, "disposition", 0) & cover)


def _film_shots(path: Path, container: Any, stream: Any, start: float, limit: int, source: Source) -> Iterator[Shot]:
    import av

    base = stream.time_base or 1 / 90000
    origin = float((stream.start_time or 0) * base)
    if start > 1:  # far enough for a jump to be worth it
        try:
            container.seek(int((start + origin) / base), stream=stream)
        except av.FFmpegError:  # not seekable: decode from the beginning
            container.seek(0)
    decoder = _decoder(stream)
    bad, count, first, last = 0, 0, None, None
    broken = False
    with container:
        for packet in _packets(container, stream):
            try:
                frames = decoder.decode(packet)
                bad = 0
            except av.FFmpegError as error:
                bad += 1
                broken = True
                if count == 0 and (packet is None or bad > MOST_BAD_PACKETS):
                    raise ImageError(
                        f"{path} cannot be decoded ({_reason(error)}); download or save it again"
                    ) from error
                if packet is None or bad > MOST_BAD_PACKETS:
                    break
                continue
            for frame in frames:
                seconds = None if frame.pts is None else float(frame.pts * (frame.time_base or base)) - origin
                if first is None and seconds is not None and start <= 1 and seconds > 0:
                    origin, seconds = origin + seconds, 0.0  # the clip starts with its first picture
                first = seconds if first is None else first
                if seconds is None or (last is not None and seconds <= last):  # missing or wrong time stamps
                    seconds = (last if last is not None else -1 / source.fps) + 1 / source.fps
                last, count = seconds, count + 1
                yield Shot(seconds, lambda frame=frame: film_pixels(frame, stream, limit))
    if count == 0:
        raise ImageError(f"{path} holds no picture that can be decoded; download or save it again")
    if broken:
        source.notes.append(f"parts of the video are damaged; {count} frames could be decoded, up to {last:.2f} s")
    elif source.seconds and last + 2 / source.fps < source.seconds - 0.5:
        source.notes.append(f"the video ends after {last:.2f} s of {source.seconds:.2f} s; the file may be cut short")


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, then None (which makes a decoder give its last frames)."""
    import av

    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError:
        pass  # the container itself is damaged from here on
    yield None


def _decoder(stream: Any) -> Any:
    """The stream's decoder; for VP8 and VP9 with transparency libvpx, as FFmpeg's own decoders drop the alpha."""
    import av

    name = stream.codec_context.name
    if stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1" and name in ("vp8", "vp9"):
        decoder = av.CodecContext.create("libvpx" if name == "vp8" else "libvpx-vp9", "r")
        decoder.extradata = stream.codec_context.extradata
        return decoder
    return stream.codec_context


def film_pixels(frame: Any, stream: Any, limit: int) -> np.ndarray:
    """[H, W, 3 or 4] uint8 sRGB of a decoded frame: right aspect, upright, long side at most ``limit``."""
    aspect = stream.sample_aspect_ratio
    wide = float(aspect) if aspect and 0.1 < float(aspect) < 10 else 1.0
    width, height = fitted(frame.width * wide, frame.height, limit)
    alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
    options: dict[str, Any] = {"format": "rgba" if alpha else "rgb24", "width": width, "height": height}
    options["interpolation"] = "AREA" if width * height < frame.width * frame.height else "BICUBIC"
    if int(frame.colorspace) in (2, 3) and not frame.format.is_rgb:  # untold: HD is BT.709, smaller films BT.601
        options["src_colorspace"] = "ITU709" if frame.height >= 720 else "ITU601"
    pixels = frame.reformat(**options).to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90)  # quarters, counter-clockwise
    return np.ascontiguousarray(np.rot90(pixels, turns % 4)) if turns % 4 else pixels


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


# ---- animated pictures --------------------------------------------------------------------------------------------


def is_animation(path: Path) -> bool:
    """Whether the file is a picture that Pillow reads (GIF, WebP, PNG, JPEG), animated or not, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(12)
    kinds = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM")
    return head.startswith(kinds) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def open_animation(path: Path, limit: int) -> Source:
    """A GIF, animated WebP or PNG with each frame's own duration (10 ms and less mean 100 ms, as in browsers)."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path)
            count = getattr(image, "n_frames", 1)
        except Exception as error:
            raise ImageError(f"{path} cannot be read as an animation: {error}") from error
    if image.width * image.height >= MAX_PIXELS:
        raise ImageError(f"{path} has {image.width} x {image.height} pixels; scale it down first")
    source = Source(iter(()), FALLBACK_FPS)
    ends, at = [], 0.0
    try:
        for i in range(count):
            image.seek(i)
            milliseconds = float(image.info.get("duration") or 0)
            at += (milliseconds if milliseconds > 10 else 100.0) / 1000
            ends.append(at)
    except Exception as error:  # Pillow raises nearly anything on damaged data
        source.notes.append(f"the animation is damaged ({error}); {len(ends)} of {count} frames were read")
    if not ends:
        raise ImageError(f"{path} is damaged; save or download it again")
    source.fps, source.seconds = len(ends) / ends[-1], ends[-1]

    def shots() -> Iterator[Shot]:
        for i, (begin, end) in enumerate(pairwise([0.0, *ends])):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    image.seek(i)
                    frame = image.convert("RGBA")
            except Exception as error:
                if i == 0:
                    raise ImageError(f"{path} is damaged ({error}); save or download it again") from error
                source.notes.append(f"the animation is damaged ({error}); {i} frames were read")
                return
            yield Shot(begin, lambda frame=frame: _shrunk(np.array(frame), limit), end - begin)

    source.shots = shots()
    return source


def _shrunk(pixels: np.ndarray, limit: int) -> np.ndarray:
    from .images import resize_image, to_uint8

    size = fitted(pixels.shape[1], pixels.shape[0], limit)[::-1]
    if size == pixels.shape[:2]:
        return pixels
    import torch

    return to_uint8(resize_image(torch.from_numpy(pixels).float() / 255, size))


# ---- folders ------------------------------------------------------------------------------------------------------


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key: frame_2 before frame_10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name.lower())]


def open_folder(folder: Path, fps: float | None, limit: int) -> Source:
    """Pictures of a folder in natural order, ``fps`` a second (24 by default); other files are left out and noted."""
    names = sorted((p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=natural_order)
    pictures = [name for name in names if Path(name).suffix.lower() in PICTURES]
    if not pictures:
        raise InputError(f"{folder} holds no pictures (PNG, JPEG, WebP); give a folder of frames or a video file")
    source = Source(iter(()), fps or FOLDER_FPS)
    source.seconds = len(pictures) / source.fps
    if len(pictures) < len(names):
        others = [name for name in names if name not in set(pictures)]
        source.notes.append(f"{len(others)} files that are no pictures were left out ({', '.join(others[:3])})")

    def shots() -> Iterator[Shot]:
        good = 0
        for name in pictures:
            try:
                rgba = read_image(folder / name).rgba
            except ImageError as error:
                source.notes.append(f"{name} was left out: {error}")
                continue
            yield Shot(
                good / source.fps, lambda rgba=rgba: _shrunk((rgba.numpy() * 255).round().astype(np.uint8), limit)
            )
            good += 1
        if not good:
            raise ImageError(f"none of the {len(pictures)} pictures in {folder} can be read; save them again as PNG")

    source.shots = shots()
    return source
