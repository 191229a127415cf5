"""The points of a COLMAP model, for splats to start from: ``points3D.bin`` or ``points3D.txt``."""

from __future__ import annotations

import struct
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CameraError

_HEAD = struct.Struct("<Q3d3BdQ")  # number, position, colour, error, how many pictures see it (8 bytes each follow)


def read_colmap_points(path: str | PathLike[str]) -> tuple[Tensor, Tensor] | None:
    """Positions [N, 3] in COLMAP's world and colours [N, 3] in 0..1 of a sparse model; None where it has no points file.

    Args:
        path: the model's folder, or a project folder that holds it in ``sparse/0`` or ``sparse``.

    Raises:
        CameraError: the file is damaged.
    """
    folder = Path(path)
    for place in (folder, folder / "sparse" / "0", folder / "sparse"):
        if (place / "points3D.bin").is_file():
            return _binary(place / "points3D.bin")
        if (place / "points3D.txt").is_file():
            return _text(place / "points3D.txt")
    return None


def _binary(file: Path) -> tuple[Tensor, Tensor]:
    data = file.read_bytes()
    rows, at = [], 8
    try:
        (count,) = struct.unpack_from("<Q", data, 0)
        for _ in range(count):
            _, x, y, z, r, g, b, _, seen = _HEAD.unpack_from(data, at)
            rows.append((x, y, z, r, g, b))
            at += _HEAD.size + 8 * seen
    except struct.error as error:
        raise CameraError(f"{file} ends in the middle ({error}); export the model again") from error
    if at > len(data):
        raise CameraError(f"{file} ends in the middle; export the model again")
    return _tensors(rows)


def _text(file: Path) -> tuple[Tensor, Tensor]:
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            rows.append(tuple(float(w) for w in words[1:7]))
            if len(rows[-1]) != 6:
                raise ValueError("too few numbers")
        except ValueError as error:
            raise CameraError(f"{file}, line {number}: needs POINT3D_ID X Y Z R G B ... ({error})") from error
    return _tensors(rows)


def _tensors(rows: list[tuple[float, ...]]) -> tuple[Tensor, Tensor]:
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    values = values[torch.isfinite(values).all(1)].float()
    return values[:, :3].contiguous(), values[:, 3:] / 255
