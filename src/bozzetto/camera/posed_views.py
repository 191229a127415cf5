"""What the camera readers return, and the small facts about pictures on disk that they share."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import CameraError, ImageError
from .cameras import Cameras

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")


class PosedViews(NamedTuple):
    """Cameras read from a file, one per picture, in the file's own world frame.

    Attributes:
        cameras: batch shape (N,), with one unique name per camera (the picture's file name without its suffix).
        paths: where each picture is; a path that does not exist is possible only if the reader was told not to mind.
        sizes: (height, width) in pixels that the intrinsics were stated for, or None where the file does not say and
            there is no picture to ask.
    """

    cameras: Cameras
    paths: list[Path]
    sizes: list[tuple[int, int] | None]


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) of the picture file as stored; only its header is read. Raises :class:`ImageError`."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be read as a picture ({error}); replace or remove it") from error


def find_picture(folder: Path, name: str) -> Path | None:
    """The file that ``name`` (with or without its suffix, relative to ``folder`` or absolute) means, or None.

    Raises :class:`CameraError` for a name that the system cannot look up (too long, in a folder without permission).
    """
    path = folder / name.replace("\\", "/")
    try:
        if path.is_file():
            return path
        for suffix in PICTURE_SUFFIXES:  # appended, not with_suffix: "view_0.5" ends in no suffix
            candidate = path.with_name(path.name + suffix)
            if candidate.is_file():
                return candidate
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise CameraError(f"the picture {shortened(name)!r} cannot be looked up ({what}); correct its path") from error
    return None


def shortened(text: str, length: int = 80) -> str:
    """``text`` cut to ``length`` characters, for messages."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def check_focal(focal: float, label: str) -> float:
    """A normalised focal length, refused if no camera has it (and float32 or the distortion formula would overflow)."""
    if not 1e-6 < focal < 1e6:
        raise CameraError(f"{label} means a focal length of {focal:.3g} times the picture's side; no camera has that")
    return focal


def unique_names(files: Sequence[str]) -> tuple[str, ...]:
    """One name per picture, safe as a file name: its stem if no two pictures share one, else its path joined by "_"."""

    def parts(file: str) -> list[str]:
        pieces = [p for p in re.split(r"[/\\:]+", file) if p not in ("", ".", "..")] or ["view"]
        head, dot, tail = pieces[-1].rpartition(".")
        if dot and head and f".{tail.lower()}" in (*PICTURE_SUFFIXES, ".exr", ".tif", ".tiff", ".bmp"):
            pieces[-1] = head
        return [re.sub(r'[<>"|?*\x00-\x1f]', "_", p) for p in pieces]

    split = [parts(f) for f in files]
    names = [p[-1] for p in split]
    if len(set(names)) < len(names):
        names = ["_".join(p) for p in split]
    seen: dict[str, int] = {}
    taken = set(names)
    for i, name in enumerate(names):
        if name in seen:  # the very same picture twice
            while f"{name}_{seen[name]}" in taken:
                seen[name] += 1
            names[i] = f"{name}_{seen[name]}"
            taken.add(names[i])
        else:
            seen[name] = 1
    return tuple(names)


def refuse_missing(missing: Sequence[str], source: Path) -> None:
    """Raise :class:`CameraError` that lists the first few of the pictures that ``source`` names and the disk lacks."""
    if missing:
        listed = ", ".join(shortened(name) for name in missing[:3]) + (
            f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        )
        raise CameraError(f"{source} names pictures that do not exist: {listed}. Put them there or correct the paths.")


def check_aspect(stated: tuple[int, int], actual: tuple[int, int], label: str) -> None:
    """Refuse a picture whose shape contradicts the size its intrinsics were stated for (a plain resize is fine)."""
    ratio = (stated[1] / stated[0]) / (actual[1] / actual[0])
    if not 0.98 < ratio < 1 / 0.98:
        raise CameraError(
            f"{label}: the cameras were made for pictures of {stated[1]}x{stated[0]} pixels, this one has "
            f"{actual[1]}x{actual[0]}. A picture may be resized but not cropped or turned; export the cameras again."
        )


def check_distortion(
    radial: Sequence[float], tangential: Sequence[float], intrinsics: Sequence[float], label: str
) -> None:
    """Refuse cameras whose lens distortion bends the picture visibly; a pinhole camera cannot express it.

    Args:
        radial: k1, k2, ...; tangential: p1, p2 (Brown-Conrady, as OpenCV and COLMAP define them).
        intrinsics: (fx, fy, cx, cy), normalised.

    The measure is the largest shift of a corner or edge midpoint, as a share of the picture's width or height: up to
    0.1 % (half a pixel of 512) passes, up to 1 % passes with a warning, more raises :class:`CameraError`.
    """
    fx, fy, cx, cy = intrinsics
    p1, p2 = (*tangential, 0.0, 0.0)[:2]
    worst = 0.0
    for u, v in ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0), (0.5, 1), (0, 0.5), (1, 0.5)):
        x, y = (u - cx) / fx, (v - cy) / fy
        r2 = x * x + y * y
        factor = sum(k * r2 ** (i + 1) for i, k in enumerate(radial))
        dx = x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        worst = max(worst, abs(dx * fx), abs(dy * fy))
    if not worst <= 0.01:  # also NaN
        raise CameraError(
            f"{label}: its lens distortion moves the picture's border by {worst:.1%} of its size, and only pinhole "
            "cameras are supported. Undistort the pictures first (for example `colmap image_undistorter`)."
        )
    if worst > 0.001:
        warnings.warn(
            f"{label}: its lens distortion (up to {worst:.2%} of the picture's size) is ignored; undistort the "
            "pictures for the best result",
            stacklevel=3,
        )
