"""Gaussian splats on disk, whatever the format."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from ..errors import OutputError, SplatFileError
from ..gaussians import Gaussians
from .inputs import check_input
from .ply import read_ply, write_ply
from .splat_format import read_splat, write_splat

SUFFIXES = (".ply", ".splat")


def read_splats(path: str | PathLike[str]) -> Gaussians:
    """Read a PLY (recognised by its content) or a ``.splat`` file (by its name).

    Raises:
        SplatFileError: missing, empty or malformed file, or another format.
    """
    path = check_input(path, "a splat file", SplatFileError)
    with path.open("rb") as file:
        head = file.read(3)
    if head == b"ply" or path.suffix.lower() == ".ply":
        return read_ply(path)
    if path.suffix.lower() == ".splat":
        return read_splat(path)
    raise SplatFileError(f"{path} is not a splat file that can be read; known are {' and '.join(SUFFIXES)}")


def write_splats(gaussians: Gaussians, path: str | PathLike[str]) -> None:
    """Write ``.ply`` (standard 3DGS layout) or ``.splat``, by the name's suffix, atomically.

    Raises:
        OutputError: another suffix, or the file cannot be written.
        SplatFileError: NaN or infinite values.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(f"cannot write {path}: the name of a splat file must end in {' or '.join(SUFFIXES)}")
    if suffix == ".ply":
        write_ply(gaussians, path)
    else:
        write_splat(gaussians, path)
