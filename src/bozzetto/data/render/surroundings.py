"""Light measured from panoramas: equirectangular pictures of linear radiance (.hdr, .exr) as polynomials of the normal.

A panorama's middle is what one sees looking towards +z; a quarter of its width to the right is -x, its left and right edge -z.
The result is what ``environments.json`` holds for 26 panoramas, and what :meth:`Lights.random` takes.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ImageError, InputError, MissingDependencyError
from ...files.atomic import atomic_write_text
from ...files.inputs import check_input, read_input
from .environment import adapted, polynomial, weakened

SUFFIXES = (".hdr", ".exr", ".exr.js")
_MOST = 64 << 20  # pixels of a panorama
_ROWS = 64  # projected at once


def light_of_panorama(picture: NDArray[np.floating] | Tensor) -> Tensor:
    """What matte surfaces receive from the surroundings of a panorama.

    Args:
        picture: [H, W, 3] linear radiance, the first row straight up, square pixels (W = 2 H).

    Returns:
        [9, 3] (see :mod:`.environment`): mean light 1, half adapted to its own tint, as an eye or a camera would.

    Raises:
        InputError: another shape, not finite, or black.
    """
    picture = torch.as_tensor(picture)
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.shape[1] != 2 * picture.shape[0]:
        raise InputError(
            f"a panorama has the shape [H, 2 H, 3], not {list(picture.shape)}: all around, equirectangular"
        )
    height, width = picture.shape[:2]
    angle = torch.pi - (torch.arange(width, dtype=torch.float64) + 0.5) * (2 * torch.pi / width)  # from +z towards +x
    total, weight = torch.zeros(9, 3, dtype=torch.float64), 0.0
    for first in range(0, height, _ROWS):
        rows = torch.arange(first, min(first + _ROWS, height), dtype=torch.float64)
        down = ((rows + 0.5) * (torch.pi / height))[:, None]  # [R, 1], from straight up
        ring = down.sin()
        directions = torch.stack([ring * angle.sin(), down.cos().expand(-1, width), ring * angle.cos()], -1)
        terms = polynomial(directions) * ring[..., None]  # [R, W, 9], by the pixels' solid angles
        total += torch.einsum("rwk,rwc->kc", terms, picture[first : first + _ROWS].double().clamp_min(0))
        weight += float(ring.sum()) * width
    if not torch.isfinite(total).all() or not (total[0] > 0).all():
        raise InputError("a panorama must hold finite numbers and light of all three colours")
    return adapted(weakened(total / weight)).float()


def read_panorama(path: str | PathLike[str]) -> NDArray[np.float32]:
    """[H, W, 3] linear radiance of a Radiance picture (.hdr), an OpenEXR one, or a JavaScript module that holds one (.exr.js).

    Raises:
        ImageError: it cannot be read. MissingDependencyError: OpenEXR files need the package OpenEXR.
    """
    path = Path(path)
    if path.name.endswith(".exr.js"):
        text = read_input(path, "a module with a panorama", ImageError).decode("latin-1")
        found = re.search(r"data:[\w/.+-]*;base64,([A-Za-z0-9+/=\s]+)", text)
        if found is None:
            raise ImageError(f"{path} holds no picture in base64")
        return _read_exr(base64.b64decode(found[1]), path)
    if path.suffix.lower() == ".exr":
        return _read_exr(read_input(path, "an OpenEXR picture", ImageError), path)
    if path.suffix.lower() == ".hdr":
        return _read_radiance(read_input(path, "a Radiance picture", ImageError), path)
    raise ImageError(f"{path} is no panorama: .hdr and .exr can be read")


def _read_exr(data: bytes, path: Path) -> NDArray[np.float32]:
    try:
        import OpenEXR
    except ImportError:
        raise MissingDependencyError(
            "reading .exr files needs the package OpenEXR: pip install 'bozzetto[data]'"
        ) from None
    with tempfile.TemporaryDirectory() as folder:  # the package reads files only
        file = Path(folder) / "panorama.exr"
        file.write_bytes(data)
        try:
            with OpenEXR.File(str(file), separate_channels=True) as opened:
                channels = opened.channels()
                return np.stack([np.array(channels[c].pixels, np.float32) for c in "RGB"], -1)
        except KeyError:
            raise ImageError(f"{path} has no channels R, G and B") from None
        except Exception as problem:
            raise ImageError(f"{path} cannot be read: {problem}") from problem


def _read_radiance(data: bytes, path: Path) -> NDArray[np.float32]:
    """RGBE, run-length encoded by lines or not at all."""
    head = re.match(rb"#\?[^\n]*\n(?:[^\n]*\n)*?\n-Y (\d+) \+X (\d+)\n", data)
    if head is None or b"32-bit_rle_xyze" in head[0]:
        raise ImageError(f"{path} is no Radiance picture with rows from the top (-Y, +X) and colours red, green, blue")
    height, width = int(head[1]), int(head[2])
    if not 0 < height * width <= _MOST:
        raise ImageError(f"{path} has {height:,} x {width:,} pixels; at most {_MOST:,} can be read")
    at, rows = head.end(), np.empty((height, 4, width), np.uint8)
    try:
        for row in rows:
            if 8 <= width < 32768 and data[at] == 2 and data[at + 1] == 2 and data[at + 2] < 128:
                at = _runs(data, at + 4, row)
            else:
                flat = np.frombuffer(data, np.uint8, 4 * width, at).reshape(width, 4)
                row[:] = flat.T
                at += 4 * width
    except (IndexError, ValueError):
        raise ImageError(f"{path} is damaged or cut short") from None
    scale = np.ldexp(np.float32(1), rows[:, 3].astype(np.int32) - 136)  # [H, W]
    scale[rows[:, 3] == 0] = 0
    return rows[:, :3].transpose(0, 2, 1) * scale[..., None]


def _runs(data: bytes, at: int, row: NDArray[np.uint8]) -> int:
    """Fill ``row`` [4, W] from runs: above 128 a repeated byte, else that many bytes as they are; where the next line begins."""
    for channel in row:
        x = 0
        while x < len(channel):
            count = data[at]
            if count > 128:
                count -= 128
                run = data[at + 1]
                at += 2
            else:
                run = np.frombuffer(data, np.uint8, count, at + 1)
                at += 1 + count
            if not 0 < count <= len(channel) - x:
                raise ValueError("a run that does not fit")
            channel[x : x + count] = run
            x += count
    return at


def measure_panoramas(
    places: Sequence[str | PathLike[str]], tell: Callable[[str, float], None] | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """The light of panoramas.

    Args:
        places: files, or folders that are searched for them.

    Returns:
        ``<folder>/<file>`` -> [9, 3], and why pictures in folders were left out (not all around, damaged).

    Raises:
        InputError: there is none, or a file that was named cannot be read. MissingDependencyError: as :func:`read_panorama`.
    """
    paths: list[tuple[Path, bool]] = []
    for place in map(Path, places):
        found = sorted(place.rglob("*")) if place.is_dir() else [check_input(place, "a panorama", InputError)]
        paths += [(p, place.is_dir()) for p in found if p.is_file() and p.name.lower().endswith(SUFFIXES)]
    out: dict[str, Tensor] = {}
    left_out = []
    for i, (path, searched) in enumerate(paths):
        if tell is not None:
            tell(f"measuring {path.name}", i / len(paths))
        try:
            out[f"{path.parent.name}/{path.name.split('.')[0]}"] = light_of_panorama(read_panorama(path))
        except InputError as problem:
            said = str(problem) if str(path) in str(problem) else f"{path}: {problem}"
            if not searched:
                raise InputError(said) from None
            left_out.append(said)
    if not out:
        why = f"; {left_out[0]}" if left_out else ""
        raise InputError(f"no panoramas ({', '.join(SUFFIXES[:2])}) in {', '.join(map(str, places))}{why}")
    return out, left_out


def save_light(path: str | PathLike[str], light: dict[str, Tensor], licence: str = "") -> None:
    """Write measured light as JSON, in the form of ``environments.json``."""
    rows = {name: [[round(x, 4) for x in row] for row in value.tolist()] for name, value in light.items()}
    about = "Light of photographed surroundings as polynomials of the normal (environment.py), mean 1, half adapted"
    content = {"about": about, "licence": licence, "light": rows}
    atomic_write_text(path, json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")


def load_light(path: str | PathLike[str]) -> Tensor:
    """[E, 9, 3] of a file of :func:`save_light`. Raises :class:`InputError` where it is none."""
    try:
        light = torch.tensor(
            list(json.loads(read_input(path, "a file of `bozzetto data light`", InputError))["light"].values())
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(f"{path} is no file of `bozzetto data light`: {problem}") from None
    if light.ndim != 3 or light.shape[1:] != (9, 3) or not len(light) or not torch.isfinite(light).all():
        raise InputError(f"{path} is no file of `bozzetto data light`: it has the shape {list(light.shape)}")
    return light
